use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use dayfly_core::ids::Uid;

use super::*;
use crate::objects::Pods;

const PODS: usize = 10_000;
/// What one pod may cost in bytes of memory, where controllers have 50 pods: 10 000 of them less than 10 MB.
const LIKE_OTHERS: usize = 1000;
/// The same of pods that have nothing alike, which no cluster has.
const UNLIKE_ALL: usize = 4000;
const CHILD: &str = "DAYFLY_TEST_MEASURE_PODS";

/// A pod as a cluster has it, the `n`th: of a controller of `of` pods, with 8 labels, a ReplicaSet, two containers and a sidecar, and what is skipped.
fn pod(n: usize, of: usize) -> Value {
    let name = format!("checkout-payments-api-7d4b9c6f5d-{n:05}");
    let group = n / of;
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/shop/{name}:1.2.3"), "ready": true, "restartCount": 0,
            "imageID": format!("registry.example.com/shop/{name}@sha256:{group:064x}"),
            "containerID": format!("containerd://{n:064x}"), "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}},
        })
    };
    let env: Vec<Value> =
        (0..20).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(40)})).collect();
    json!({
        "metadata": {
            "name": name, "namespace": format!("namespace-{}", group % 100), "uid": Uid::from_u128(n as u128),
            "resourceVersion": n.to_string(), "creationTimestamp": "2026-11-23T12:00:00Z",
            "labels": {
                "app.kubernetes.io/name": "payments-api", "app.kubernetes.io/instance": "checkout-payments-api",
                "app.kubernetes.io/version": "1.2.3", "app.kubernetes.io/component": "server",
                "app.kubernetes.io/part-of": "checkout", "app.kubernetes.io/managed-by": "Helm",
                "team": "checkout", "pod-template-hash": format!("{group:010}"),
            },
            "annotations": {"checksum/config": "x".repeat(64), "prometheus.io/scrape": "true"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("checkout-payments-api-{group:010}"),
                "uid": Uid::from_u128(group as u128), "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:phase": {}}}}],
        },
        "spec": {
            "serviceAccountName": "payments-api", "nodeName": format!("node-{}.internal", n % 200),
            "initContainers": [{"name": "proxy", "image": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "api", "image": "api", "env": env}, {"name": "metrics", "image": "metrics"}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [container("api"), container("metrics")],
            "initContainerStatuses": [container("proxy")],
        },
    })
}

/// Parses a page as [`Informer::list`] does. `text` is used again, so that it is not counted.
fn read(store: &Store<Pods>, list: &mut Held<Pods>, from: usize, of: usize, text: &mut String) {
    text.clear();
    text.push_str(r#"{"metadata": {"resourceVersion": "1"}, "items": ["#);
    for n in from..from + PAGE as usize {
        write!(text, "{}{}", if n == from { "" } else { "," }, pod(n, of)).unwrap();
    }
    text.push_str("]}");
    let page: Page = parse(text.as_bytes()).unwrap();
    for (namespace, name, facts) in page.items.iter().filter_map(|item| store.read(item)) {
        list.entry(namespace).or_default().insert(name, facts);
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// In a process of its own, where nothing else takes memory meanwhile.
#[test]
#[cfg(target_os = "linux")]
fn memory_of_ten_thousand_pods_is_bounded() {
    if let Some(of) = std::env::var_os(CHILD) {
        return measure(of.to_str().unwrap().parse().unwrap());
    }
    for (of, most) in [(50, LIKE_OTHERS), (1, UNLIKE_ALL)] {
        let measured = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "informer::tests::memory_of_ten_thousand_pods_is_bounded", "--nocapture"])
            .env(CHILD, of.to_string())
            // The allocator gives back what is not used, and keeps one heap.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_TRIM_THRESHOLD_", "65536")
            .env("MALLOC_MMAP_THRESHOLD_", "65536")
            .output()
            .unwrap();
        let said = String::from_utf8(measured.stdout).unwrap();
        assert!(measured.status.success(), "{said}{}", String::from_utf8_lossy(&measured.stderr));
        let bytes = said.lines().find_map(|line| line.split_once("bytes a pod: ")).unwrap().1;
        let bytes: usize = bytes.trim().parse().unwrap();
        assert!((100..most).contains(&bytes), "{bytes} bytes a pod of {of}, at most {most}");
        #[expect(clippy::print_stdout, reason = "what was measured")]
        {
            println!("{bytes} bytes a pod, where a controller has {of}");
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is how the child tells its parent")]
fn measure(of: usize) {
    let store = Store::<Pods>::new();
    // What parsing itself takes stays with the allocator: it is taken before.
    let mut text = String::new();
    for from in [0, 500, 1000, 1500] {
        read(&Store::new(), &mut Held::<Pods>::new(), from, of, &mut text);
    }
    let before = resident();
    let mut list = Held::<Pods>::new();
    for from in (0..PODS).step_by(PAGE as usize) {
        read(&store, &mut list, from, of, &mut text);
    }
    store.replace(list);
    let bytes = resident().saturating_sub(before) / PODS;
    let name = pod(0, of)["metadata"]["name"].as_str().unwrap().parse().unwrap();
    assert_eq!(store.get(&"namespace-0".parse().unwrap(), &name).unwrap().images.len(), 3);
    println!("bytes a pod: {bytes}");
}
