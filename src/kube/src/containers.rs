//! What a pod's containers run, from its status.

use std::sync::Arc;

use dayfly_core::provenance::{IMAGES, Image};
use serde::Deserialize;

/// Of a pod's `status`; of other kinds', nothing.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) phase: String,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
}

/// The images of containers, ephemeral ones and init containers, of those that have ended too: each ran with the pod's
/// token. At most [`IMAGES`]. Those that are not known by digest yet are left out.
pub(crate) fn images(status: &Status) -> Arc<[Image]> {
    let Status { container_statuses, ephemeral_container_statuses, init_container_statuses, .. } = status;
    let all = [container_statuses, ephemeral_container_statuses, init_container_statuses];
    let all = all.into_iter().flatten().filter(|container| is_container_name(&container.name));
    all.filter_map(image).take(IMAGES).collect()
}

fn image(container: &ContainerStatus) -> Option<Image> {
    // `imageID` is `registry/name@sha256:...`, before it some runtimes put `docker-pullable://`; or, for an image that was
    // never in a registry, the runtime's own id, `sha256:...`. What a registry knows it by comes first.
    let digest = of_registry(&container.image_id)
        .or_else(|| of_registry(&container.image))
        .or_else(|| own(&container.image_id))?;
    Some(Image { container: container.name.clone(), digest: digest.to_owned() })
}

fn of_registry(image: &str) -> Option<&str> {
    image.rsplit_once('@').and_then(|(_, digest)| sha256(digest))
}

fn own(image_id: &str) -> Option<&str> {
    sha256(image_id.rsplit_once("://").map_or(image_id, |(_, id)| id))
}

/// A digest, if it is one of SHA-256.
fn sha256(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:")?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == 64 && hex.bytes().all(lower_hex)).then_some(text)
}

/// RFC 1123 label.
fn is_container_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images_of(status: serde_json::Value) -> Vec<(String, String)> {
        let status: Status = serde_json::from_value(status).unwrap();
        images(&status).iter().map(|it| (it.container.clone(), it.digest.clone())).collect()
    }

    #[test]
    fn images_are_those_that_run_by_digest() {
        let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
        let status = serde_json::json!({
            "containerStatuses": [
                {"name": "api", "image": "shop/api:1", "imageID": format!("registry.example/shop/api@{}", digest('a'))},
                {"name": "docker", "image": "x", "imageID": format!("docker-pullable://shop/api@{}", digest('b'))},
                {"name": "local", "image": "x", "imageID": digest('c')},
                {"name": "both", "image": format!("shop/api@{}", digest('d')), "imageID": digest('e')},
                {"name": "waiting", "image": "shop/api:1", "imageID": ""},
                {"name": "short", "image": "x", "imageID": "x@sha256:abc"},
                {"name": "other", "image": "x", "imageID": format!("x@sha512:{}", "a".repeat(128))},
                {"name": "Not a name", "image": "x", "imageID": digest('f')},
            ],
            "initContainerStatuses": [
                {"name": "proxy", "imageID": digest('1')}, {"name": "migrate", "imageID": digest('2')},
            ],
            "ephemeralContainerStatuses": [{"name": "debug", "imageID": digest('3')}],
        });
        let expected = [
            ("api", 'a'),
            ("docker", 'b'),
            ("local", 'c'),
            ("both", 'd'),
            ("debug", '3'),
            ("proxy", '1'),
            ("migrate", '2'),
        ];
        let expected: Vec<_> = expected.map(|(name, c)| (name.to_owned(), digest(c))).into();
        assert_eq!(images_of(status), expected);
    }

    #[test]
    fn images_are_bounded() {
        let one =
            |n: usize| serde_json::json!({"name": format!("c{n}"), "imageID": format!("sha256:{n:064}")});
        let all: Vec<_> = (0..IMAGES + 5).map(one).collect();
        let images = images_of(serde_json::json!({"containerStatuses": all}));
        assert_eq!(images.len(), IMAGES);
    }
}
