//! Watches.

use futures_util::{StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, watcher};

use crate::{PATIENCE, Shop};

#[tokio::test]
async fn a_namespace_takes_all_it_holds_with_it() {
    let shop = Shop::open().await;
    let version = shop.pods().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    Api::<Namespace>::all(shop.client.clone()).delete("shop", &DeleteParams::default()).await.unwrap();
    let events: Vec<_> = watch(&shop.pods(), &version).await.take(1).collect().await;
    assert!(matches!(&events[0], WatchEvent::Deleted(pod) if pod.metadata.name.as_deref() == Some("cart-0")));
    let left = Api::<ServiceAccount>::all(shop.client.clone()).list(&ListParams::default()).await.unwrap();
    assert!(left.items.is_empty());
}

#[tokio::test]
async fn a_kube_watcher_sees_what_comes_and_goes() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let shop = Shop::open().await;
        let events = watcher(Api::<Pod>::all(shop.client.clone()), config);
        pin_mut!(events);
        let mut next = async || -> watcher::Event<Pod> {
            tokio::time::timeout(PATIENCE, events.try_next()).await.unwrap().unwrap().unwrap()
        };
        assert!(matches!(next().await, watcher::Event::Init));
        assert!(matches!(next().await, watcher::Event::InitApply(pod) if name(&pod) == "cart-0"));
        assert!(matches!(next().await, watcher::Event::InitDone));
        shop.stand_in.create_pod("shop", "cart-1", "cart").unwrap();
        assert!(matches!(next().await, watcher::Event::Apply(pod) if name(&pod) == "cart-1"));
        shop.stand_in.delete_pod("shop", "cart-1", false).unwrap();
        assert!(
            matches!(next().await, watcher::Event::Apply(pod) if pod.metadata.deletion_timestamp.is_some())
        );
        shop.stand_in.delete_pod("shop", "cart-1", true).unwrap();
        assert!(matches!(next().await, watcher::Event::Delete(pod) if name(&pod) == "cart-1"));
    }
}

#[tokio::test]
async fn a_watch_resumes_gets_bookmarks_and_is_told_when_it_is_too_old() {
    let shop = Shop::open().await;
    let accounts = Api::<ServiceAccount>::namespaced(shop.client.clone(), "shop");
    let version = accounts.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    for number in 0..3 {
        shop.stand_in.create_service_account("shop", &format!("a-{number}")).unwrap();
    }
    let mut events = watch(&accounts, &version).await;
    for number in 0..3 {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        assert!(matches!(event, WatchEvent::Added(account)
            if account.metadata.name == Some(format!("a-{number}"))));
    }
    let bookmark = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert!(matches!(bookmark, WatchEvent::Bookmark(_)));

    for number in 0..1100 {
        shop.stand_in.create_service_account("shop", &format!("b-{number}")).unwrap();
    }
    let mut late = watch(&accounts, &version).await;
    assert!(matches!(late.next().await.unwrap(), WatchEvent::Error(status) if status.code == 410));
    let from_before_a_restart = watch(&accounts, "7").await.next().await.unwrap();
    assert!(matches!(from_before_a_restart, WatchEvent::Error(status) if status.reason == "Expired"));
}

#[tokio::test]
async fn it_stops_although_someone_watches() {
    let shop = Shop::open().await;
    let version = shop.pods().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = watch(&shop.pods(), &version).await;
    let addr = shop.stand_in.addr();
    tokio::time::timeout(PATIENCE, shop.stand_in.shutdown()).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert!(end.is_none_or(|event| matches!(event, WatchEvent::Bookmark(_))));
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

async fn watch<K>(
    api: &Api<K>,
    version: &str,
) -> impl futures_util::Stream<Item = WatchEvent<K>> + Unpin + use<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let events = api.watch(&WatchParams::default(), version).await.unwrap();
    events.map(Result::unwrap).boxed()
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap()
}
