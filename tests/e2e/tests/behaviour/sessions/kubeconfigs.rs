//! What kubeconfigs can say of their user, beside a certificate's files.

use std::path::{Path, PathBuf};

use dayfly_api::v1;
use dayfly_e2e::jwt;
use dayfly_e2e::run::{run, until};
use dayfly_e2e::world::World;
use serde_json::{Value, json};

use super::{bind, create, kubeconfig, opens, shared, token};

/// This kubeconfig, with its user changed, under another name.
fn changed(world: &World, kubeconfig: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut content: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
    change(&mut content["users"][0]["user"]);
    let path = world.broker().dir().join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

#[test]
fn an_exec_plugin_says_who_it_is() {
    run(async {
        let world = shared().await;
        let of_files = kubeconfig(&world, "grace", "on-call").await;
        let file = |name: &str| world.broker().dir().join(name);
        let by_exec = changed(&world, &of_files, "kubeconfig-exec", |user| {
            let pem = |field: &str| std::fs::read_to_string(user[field].as_str().unwrap()).unwrap();
            let credential = json!({
                "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                "status": { "clientCertificateData": pem("client-certificate"), "clientKeyData": pem("client-key") },
            });
            std::fs::write(file("exec-credential"), credential.to_string()).unwrap();
            let (credential, calls) = (file("exec-credential"), file("exec-calls"));
            let script = format!("echo called >> '{}'\ncat '{}'\n", calls.display(), credential.display());
            std::fs::write(file("exec-plugin"), script).unwrap();
            *user = json!({ "exec": {
                "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": [file("exec-plugin")],
                "interactiveMode": "Never",
            } });
        });
        let calls = || std::fs::read_to_string(file("exec-calls")).unwrap_or_default().lines().count();

        let by_kubectl = token(&world, &by_exec, &[]).await;
        let after_kubectl = calls();
        assert!(after_kubectl > 0, "the plugin was called");
        let out = file("exec-session").display().to_string();
        let arguments = ["session", "--kubeconfig", &by_exec.display().to_string(), "--out", &out];
        let (status, said) = world.broker().command(&arguments).await.unwrap();
        assert!(status.success(), "{said}");
        assert!(calls() > after_kubectl, "the plugin was called again");
        let by_dayfly = std::fs::read_to_string(&out).unwrap();
        world.broker().keep_secret(&by_dayfly);
        for session in [by_kubectl, by_dayfly] {
            assert_eq!(jwt::read(&session).unwrap().claims["sub"], "grace");
        }

        // A plugin that fails is told of, and no session comes of it.
        std::fs::write(file("exec-plugin"), "echo log in first >&2\nexit 7\n").unwrap();
        assert!(create(&world, &by_exec, &[]).await.is_err());
        let (status, said) = world.broker().command(&arguments).await.unwrap();
        assert!(!status.success() && said.contains("exec-plugin"), "{said}");
    });
}

#[test]
fn a_uid_groups_and_more_of_a_user_are_on_record() {
    run(async {
        let world = shared().await;
        bind(&world, "cluster-admin", "User", "root").await;
        let root = kubeconfig(&world, "root", "on-call").await;
        let root = changed(&world, &root, "kubeconfig-extra", |user| {
            user["as-user-extra"] = json!({ "example.org/desk": ["four", "five"] });
        });
        let mut arguments = vec!["--as=carol", "--as-uid=8f3a-carol"];
        arguments.extend(["--as-group=platform", "--as-group=on-call"]);
        opens(&world, &root, &arguments).await;
        let session = token(&world, &root, &arguments).await;
        let id = jwt::read(&session).unwrap().claims["jti"].as_str().unwrap().to_owned();

        let auditor = world.auditor(None).await.unwrap();
        let filter = v1::EventFilter { kinds: vec!["session-issued".to_owned()], ..Default::default() };
        let mut detail = None;
        until(async || {
            let events = auditor.events(filter.clone()).await?;
            detail = events.into_iter().find(|event| event.subject == id).and_then(|event| event.detail);
            Ok(detail.is_some())
        })
        .await
        .unwrap();
        let detail = detail.unwrap();
        assert_eq!((&*detail.actor, &*detail.user_uid), ("carol@east", "8f3a-carol"));
        assert_eq!(detail.groups, ["platform", "on-call", "system:authenticated"]);
        let mut extra = detail.extra;
        extra.sort();
        assert_eq!(extra, ["example.org/desk=five", "example.org/desk=four"]);
    });
}
