//! What a pod's containers run, from its status.

use std::sync::Arc;

use dayfly_core::provenance::{IMAGES, Image, is_image_digest};
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

/// Of a pod's `spec`, what one container is to run.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    name: String,
    image: String,
}

/// The images of containers, ephemeral ones and init containers, of those that have ended too: each ran with the pod's
/// token. At most [`IMAGES`]. What the status tells, and where the spec names a digest that it does not tell, that: the
/// runtime runs no other. And whether these are the images of all that the pod has.
pub(crate) fn images(spec: [&[Container]; 3], status: &Status) -> (Arc<[Image]>, bool) {
    let Status { container_statuses, ephemeral_container_statuses, init_container_statuses, .. } = status;
    let all = [container_statuses, ephemeral_container_statuses, init_container_statuses];
    let all = all.into_iter().flatten().filter(|container| is_container_name(&container.name));
    let mut images: Vec<Image> = all.filter_map(image).collect();
    let mut known = !spec[0].is_empty();
    for container in spec.into_iter().flatten() {
        if let Some(digest) = of_registry(&container.image).filter(|_| is_container_name(&container.name))
            && !images.iter().any(|image| image.container == container.name && image.digest == digest)
        {
            images.push(Image { container: container.name.clone(), digest: digest.to_owned() });
        }
        known &= images.iter().any(|image| image.container == container.name);
    }
    known &= images.len() <= IMAGES;
    images.truncate(IMAGES);
    (images.into(), known)
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
    is_image_digest(text).then_some(text)
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
        let (images, known) = images([&[]; 3], &status);
        assert!(!known, "without a spec, nothing says that these are all");
        images.iter().map(|it| (it.container.clone(), it.digest.clone())).collect()
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

    #[test]
    fn all_are_known_when_each_container_is_reported_or_named_by_digest() {
        let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
        let read = |spec: serde_json::Value, status| {
            let of = |kind: &str| -> Vec<Container> {
                serde_json::from_value(spec[kind].clone()).unwrap_or_default()
            };
            let spec = ["containers", "initContainers", "ephemeralContainers"].map(of);
            let spec = [&*spec[0], &*spec[1], &*spec[2]];
            let (images, known) = images(spec, &serde_json::from_value(status).unwrap());
            (images.iter().map(|it| (it.container.clone(), it.digest.clone())).collect::<Vec<_>>(), known)
        };
        let of = |name: &str, c| (name.to_owned(), digest(c));
        let spec = serde_json::json!({
            "containers": [{"name": "api", "image": "shop/api:1"}],
            "initContainers": [{"name": "proxy", "image": format!("proxy@{}", digest('b'))}],
        });
        assert_eq!(read(spec.clone(), serde_json::json!({})), (vec![of("proxy", 'b')], false));
        let api = serde_json::json!({"name": "api", "imageID": format!("shop/api@{}", digest('a'))});
        let status = serde_json::json!({"containerStatuses": [api]});
        assert_eq!(read(spec.clone(), status.clone()), (vec![of("api", 'a'), of("proxy", 'b')], true));
        // The runtime may know it by another digest, that of its platform: either is recorded.
        let proxy = serde_json::json!({"name": "proxy", "imageID": digest('c')});
        let both = serde_json::json!({"containerStatuses": [api], "initContainerStatuses": [proxy]});
        assert_eq!(
            read(spec.clone(), both),
            (vec![of("api", 'a'), of("proxy", 'c'), of("proxy", 'b')], true)
        );
        // A container for debugging that came since.
        let mut debugged = spec;
        debugged["ephemeralContainers"] = serde_json::json!([{"name": "debug", "image": "busybox"}]);
        assert!(!read(debugged, status).1);
    }
}
