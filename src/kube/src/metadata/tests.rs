use proptest::{prop_assert, proptest};
use serde_json::{Value, json};

use super::*;

fn labels(value: &Value) -> Labels {
    serde_json::from_value::<BoundedLabels>(value.clone()).unwrap().0.as_ref().clone()
}

#[test]
fn labels_are_kept_whole_or_not_at_all() {
    let good = json!({"app": "api", "example.com/team": "Payments_2.x", "empty": ""});
    assert_eq!(labels(&good).len(), 3);
    assert_eq!(labels(&json!({})).len(), 0);
    assert_eq!(labels(&Value::Null).len(), 0);
    for (key, value) in [
        ("team", "pay ments"),
        ("team", "-payments"),
        ("team", "payments-"),
        ("team", &"x".repeat(64)),
        ("", "payments"),
        ("te am", "payments"),
        ("/team", "payments"),
        ("a/b/c", "payments"),
        ("Example.com/team", "payments"),
        (&"x".repeat(64), "payments"),
        (&format!("{}/team", "x".repeat(254)), "payments"),
    ] {
        assert_eq!(labels(&json!({"app": "api", key: value, "zone": "b"})).len(), 0, "{key}={value}");
    }
    let many = |n: usize| (0..n).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    assert_eq!(labels(&many(LABELS).into()).len(), LABELS);
    assert_eq!(labels(&many(LABELS + 1).into()).len(), 0);
}

fn controller_of(references: &Value) -> Option<ObjectRef> {
    let references: Vec<OwnerReference> = serde_json::from_value(references.clone()).unwrap();
    controller(&references, Some(&"payments".parse().unwrap()))
}

fn reference(change: impl FnOnce(&mut Value)) -> Value {
    let mut reference = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api-7d", "controller": true,
        "uid": "1c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e",
    });
    change(&mut reference);
    reference
}

#[test]
fn the_controller_is_the_one_reference_that_says_so() {
    let owner = reference(|it| it["controller"] = false.into());
    let silent = reference(|it| drop(it.as_object_mut().unwrap().remove("controller")));
    let found = controller_of(&json!([owner, silent, reference(|_| ())])).unwrap();
    assert_eq!((found.to_string().as_str(), found.api_version.as_str()), ("ReplicaSet/api-7d", "apps/v1"));
    assert_eq!(found.namespace.unwrap().as_str(), "payments");
    assert_eq!(controller_of(&json!([owner, silent])), None);
    assert_eq!(controller_of(&json!([reference(|_| ()), reference(|_| ())])), None, "two of them");
    assert_eq!(controller_of(&json!([])), None);
}

#[test]
fn a_reference_that_could_not_be_a_path_is_none() {
    for (field, value) in [
        ("name", "../secrets/x"),
        ("name", ".."),
        ("name", "a/b"),
        ("name", "a?b=c"),
        ("name", "a%2fb"),
        ("name", ""),
        ("kind", "Replica/Set"),
        ("kind", ""),
        ("apiVersion", "v2"),
        ("apiVersion", ""),
        ("apiVersion", "apps/../v1"),
        ("apiVersion", "../v1"),
        ("apiVersion", "apps/v1/x"),
        ("apiVersion", "apps/"),
        ("uid", "7"),
    ] {
        assert_eq!(
            controller_of(&json!([reference(|it| it[field] = value.into())])),
            None,
            "{field} {value}"
        );
    }
}

proptest! {
    /// Whatever a pod's author writes, what is believed of it names one object, of this namespace, by its metadata.
    #[test]
    fn a_reference_that_is_taken_is_a_plain_path(
        group in "[a-zA-Z0-9./%?#:@ -]{0,12}",
        kind in "[a-zA-Z0-9./%?#:@ -]{0,8}",
        name in "[a-z0-9./%?#:@ -]{0,8}|\\PC{0,6}",
    ) {
        let written = reference(|it| {
            it["apiVersion"] = group.into();
            it["kind"] = kind.into();
            it["name"] = name.into();
        });
        if let Some(taken) = controller_of(&json!([written])) {
            let root = crate::plurals::root(&taken.api_version);
            let segments: Vec<_> = root.split('/').skip(1).chain([taken.kind.as_str(), &taken.name]).collect();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            for segment in &segments {
                prop_assert!(!segment.is_empty() && segment.bytes().all(plain), "{segments:?}");
                prop_assert!(!segment.split('.').any(str::is_empty), "{segments:?}");
            }
            prop_assert!(segments.len() <= 5);
        }
    }
}

/// Of Deployment `payments/api`.
fn applied(labels: &Value, annotations: &Value) -> Option<String> {
    let labels = serde_json::from_value(labels.clone()).unwrap();
    let annotations = serde_json::from_value(annotations.clone()).unwrap();
    let found = applied_by(&labels, &annotations, |it| it.is("apps", "Deployment", "payments", "api"))?;
    let namespace = found.namespace.map(|it| it.to_string()).unwrap_or_default();
    Some(format!("{} {} {namespace}/{}", found.api_version, found.kind, found.name))
}

#[test]
fn gitops_tools_are_known_by_what_they_leave() {
    let none = json!({});
    let tracking = |id: &str| json!({"argocd.argoproj.io/tracking-id": id, "other": "x"});
    let argo = |id: &str| applied(&none, &tracking(id));
    assert_eq!(
        argo("shop:apps/Deployment:payments/api").as_deref(),
        Some("argoproj.io/v1alpha1 Application /shop")
    );
    assert_eq!(
        argo("team-a_shop:apps/Deployment:payments/api").as_deref(),
        Some("argoproj.io/v1alpha1 Application team-a/shop")
    );
    // Of another object: it was copied.
    for id in [
        "shop:apps/Deployment:payments/web",
        "shop:apps/ReplicaSet:payments/api",
        "shop",
        "",
        "::",
        "S p:apps/Deployment:payments/api",
    ] {
        assert_eq!(argo(id), None, "{id}");
    }
    assert_eq!(
        applied(&json!({"argocd.argoproj.io/instance": "shop"}), &none).as_deref(),
        Some("argoproj.io/v1alpha1 Application /shop")
    );
    assert_eq!(applied(&json!({"app.kubernetes.io/instance": "shop"}), &none), None, "anybody's label");

    let flux = |group: &str| json!({format!("{group}/name"): "shop", format!("{group}/namespace"): "flux-system", "app": "api"});
    assert_eq!(
        applied(&flux("kustomize.toolkit.fluxcd.io"), &none).as_deref(),
        Some("kustomize.toolkit.fluxcd.io/v1 Kustomization flux-system/shop")
    );
    assert_eq!(
        applied(&flux("helm.toolkit.fluxcd.io"), &none).as_deref(),
        Some("helm.toolkit.fluxcd.io/v2 HelmRelease flux-system/shop")
    );
    assert_eq!(applied(&json!({"helm.toolkit.fluxcd.io/name": "shop"}), &none), None, "by half");

    let release = json!({"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "payments"});
    let managed = json!({"app.kubernetes.io/managed-by": "Helm"});
    assert_eq!(applied(&managed, &release).as_deref(), Some("helm.sh/v1 Release payments/shop"));
    assert_eq!(applied(&none, &release), None);
    assert_eq!(applied(&managed, &none), None);
}
