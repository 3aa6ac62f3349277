//! Tokens and reviews.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{AUDIENCE, Shop, status};

#[tokio::test]
async fn token_request_and_review_answer_as_the_real_ones() {
    let shop = Shop::open().await;
    let accounts = Api::<ServiceAccount>::namespaced(shop.client.clone(), "shop");
    let request = |audience: &str, secs, uid: &str| TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(secs),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some("cart-0".to_owned()),
                uid: Some(uid.to_owned()),
            }),
        }),
        ..TokenRequest::default()
    };
    let ask = async |name: &str, request: TokenRequest| {
        accounts.create_token_request(name, &PostParams::default(), &request).await
    };
    assert_eq!(status(ask("cart", request(AUDIENCE, 599, &shop.pod_uid)).await).code, 422);
    assert_eq!(status(ask("cart", request(AUDIENCE, 600, "another")).await).code, 409);
    assert_eq!(status(ask("default", request(AUDIENCE, 600, &shop.pod_uid)).await).code, 403);
    assert_eq!(status(ask("nobody", request(AUDIENCE, 600, &shop.pod_uid)).await).code, 404);
    let answer = ask("cart", request(AUDIENCE, 600, &shop.pod_uid)).await.unwrap().status.unwrap();

    let token = answer.token.unwrap();
    let claims = claims(&token);
    let members: Vec<_> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"]);
    assert_eq!(claims["aud"], json!([AUDIENCE]));
    assert_eq!(claims["iss"], shop.stand_in.issuer());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
    assert_eq!(claims["sub"], "system:serviceaccount:shop:cart");
    let private = &claims["kubernetes.io"];
    assert_eq!(private["namespace"], "shop");
    assert_eq!(private["serviceaccount"], json!({"name": "cart", "uid": shop.account_uid}));
    assert_eq!(private["pod"], json!({"name": "cart-0", "uid": shop.pod_uid}));

    let review = shop.review(&token, AUDIENCE).await;
    assert_eq!(review.authenticated, Some(true));
    assert_eq!(review.audiences, Some(vec![AUDIENCE.to_owned()]));
    let user = review.user.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:shop:cart"));
    assert_eq!(user.uid.as_deref(), Some(shop.account_uid.as_str()));
    assert!(user.groups.unwrap().contains(&"system:serviceaccounts:shop".to_owned()));
    let extra = user.extra.unwrap();
    let keys: Vec<_> =
        extra.keys().map(|key| key.strip_prefix("authentication.kubernetes.io/").unwrap()).collect();
    assert_eq!(keys, ["credential-id", "node-name", "node-uid", "pod-name", "pod-uid"]);
    let id = format!("JTI={}", claims["jti"].as_str().unwrap());
    assert_eq!(extra["authentication.kubernetes.io/credential-id"], [id]);
}

#[tokio::test]
async fn a_token_is_refused_once_it_has_no_ground() {
    let shop = Shop::open().await;
    let token = shop.token();
    assert_eq!(shop.review(&token, AUDIENCE).await.authenticated, Some(true));

    let other = shop.review(&token, "dayfly-operator").await;
    assert_eq!(other.authenticated, Some(false));
    assert!(other.error.unwrap().contains("is invalid for the target audiences"));

    let mut tampered = token.clone().into_bytes();
    let middle = tampered.iter().position(|byte| *byte == b'.').unwrap() + 10;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    shop.refused_for(&String::from_utf8(tampered).unwrap()).await;
    shop.refused_for("").await;
    shop.refused_for(&shop.stand_in.legacy_token("shop", "cart").unwrap()).await;

    // A pod that is being deleted keeps its tokens until its time and 60 s are over.
    shop.stand_in.delete_pod("shop", "cart-0", false).unwrap();
    shop.clock.advance(Duration::from_secs(90));
    assert_eq!(shop.review(&token, AUDIENCE).await.authenticated, Some(true));
    shop.clock.advance(Duration::from_secs(1));
    assert!(shop.refused_for(&token).await.contains("has been invalidated"));

    shop.stand_in.delete_pod("shop", "cart-0", true).unwrap();
    shop.stand_in.create_pod("shop", "cart-0", "cart").unwrap();
    assert!(shop.refused_for(&token).await.contains("has been invalidated"));

    let unbound = shop.stand_in.token("shop", "cart", AUDIENCE, None, 600).unwrap();
    assert_eq!(shop.review(&unbound, AUDIENCE).await.authenticated, Some(true));
    shop.stand_in.delete_service_account("shop", "cart").unwrap();
    assert!(shop.refused_for(&unbound).await.contains("not found"));
    shop.stand_in.create_service_account("shop", "cart").unwrap();
    assert!(shop.refused_for(&unbound).await.contains("does not match claim"));
}

#[tokio::test]
async fn a_token_is_good_between_nbf_and_exp() {
    let shop = Shop::open().await;
    let token = shop.token();
    shop.clock.advance(Duration::from_secs(599));
    assert_eq!(shop.review(&token, AUDIENCE).await.authenticated, Some(true));
    shop.clock.advance(Duration::from_secs(1));
    assert!(shop.refused_for(&token).await.contains("expired"));
    shop.clock.jump(-601);
    assert!(shop.refused_for(&token).await.contains("not valid yet"));
}

#[tokio::test]
async fn access_is_by_the_table_alone() {
    let shop = Shop::open().await;
    let who = "system:serviceaccount:shop:cart";
    let allowed = async |verb: &str, name: &str, group: &str| {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(who.to_owned()),
                groups: Some(vec!["system:serviceaccounts:shop".to_owned()]),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(group.to_owned()),
                    verb: Some(verb.to_owned()),
                    resource: Some("owners".to_owned()),
                    name: Some(name.to_owned()).filter(|name| !name.is_empty()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(shop.client.clone());
        api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    };
    assert!(!allowed("revoke", "payments", "dayfly.dev").await);
    shop.stand_in.allow(who, "revoke", "owners", Some("payments"));
    assert!(allowed("revoke", "payments", "dayfly.dev").await);
    assert!(!allowed("revoke", "orders", "dayfly.dev").await);
    assert!(!allowed("revoke", "", "dayfly.dev").await);
    assert!(!allowed("list", "payments", "dayfly.dev").await);
    assert!(!allowed("revoke", "payments", "apps").await);
    shop.stand_in.allow("system:serviceaccounts:shop", "*", "owners", None);
    assert!(allowed("list", "", "dayfly.dev").await);
    shop.stand_in.forget("system:serviceaccounts:shop");
    shop.stand_in.forget(who);
    assert!(!allowed("revoke", "payments", "dayfly.dev").await);
}

#[tokio::test]
async fn discovery_publishes_the_key_that_signs() {
    let shop = Shop::open().await;
    let get = async |path: &str| -> Value {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        shop.client.request(request).await.unwrap()
    };
    let discovery = get("/.well-known/openid-configuration").await;
    assert_eq!(discovery["issuer"], shop.stand_in.issuer());
    assert_eq!(discovery["jwks_uri"], format!("{}/openid/v1/jwks", shop.stand_in.url()));
    let set = dayfly_jose::KeySet::parse(get("/openid/v1/jwks").await.to_string().as_bytes()).unwrap();
    assert!(dayfly_jose::verify(&shop.token(), &set, dayfly_jose::Policy::kubernetes()).is_ok());
}

fn claims(token: &str) -> Value {
    let peek = dayfly_jose::peek(token).unwrap();
    Value::Object(peek.claims.all)
}

/// A token may be bound to less than a pod; TokenReview tells of a node, and not of a Secret.
#[tokio::test]
async fn tokens_are_bound_to_nodes_and_secrets_too() {
    let shop = Shop::open().await;
    let accounts = Api::<ServiceAccount>::namespaced(shop.client.clone(), "shop");
    let node = shop.pods().get("cart-0").await.unwrap().spec.unwrap().node_name.unwrap();
    let request = async |kind: &str, name: &str| {
        let spec = json!({
            "audiences": [AUDIENCE], "boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name},
        });
        let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        accounts.create_token_request("cart", &PostParams::default(), &request).await
    };
    let token = request("Node", &node).await.unwrap().status.unwrap().token.unwrap();
    let private = &claims(&token)["kubernetes.io"];
    assert_eq!((private["node"]["name"].as_str(), private.get("pod")), (Some(node.as_str()), None));
    let extra = shop.review(&token, AUDIENCE).await.user.unwrap().extra.unwrap();
    assert!(extra.contains_key("authentication.kubernetes.io/node-uid"));
    assert!(!extra.contains_key("authentication.kubernetes.io/pod-name"));

    let token = request("Secret", "cart").await.unwrap().status.unwrap().token.unwrap();
    assert_eq!(claims(&token)["kubernetes.io"]["secret"]["name"], "cart");
    let extra = shop.review(&token, AUDIENCE).await.user.unwrap().extra.unwrap();
    assert_eq!(extra.len(), 1, "{extra:?}");
    for (kind, name) in [("Node", "none"), ("Pod", "none"), ("ConfigMap", "cart")] {
        assert!(request(kind, name).await.is_err(), "{kind}");
    }
}
