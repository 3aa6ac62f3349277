//! What a cluster has: as its informers last heard, or by one GET.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ids::{Namespace, PodName, ServiceAccountName, Uid};
use dayfly_core::ports::{
    AffectedObjects, BoxFuture, ControllerChain, Directory, DirectoryError, NamespaceFacts, PodFacts,
    ServiceAccountFacts,
};
use dayfly_core::provenance::ObjectRef;
use tokio::sync::Semaphore;

use crate::affected::AffectedQueue;
use crate::api::{ApiServer, CallError, parse};
use crate::coalesce::Coalesce;
use crate::controllers::Controllers;
use crate::informer::Store;
use crate::objects::{Kind, Namespaces, Object, Pods, ServiceAccounts};

/// GETs under way at once, for each kind.
const READS_AT_ONCE: usize = 32;

/// The `Directory` of one cluster.
pub(crate) struct ClusterDirectory {
    pub(crate) pods: Lookup<Pods>,
    pub(crate) service_accounts: Lookup<ServiceAccounts>,
    pub(crate) namespaces: Lookup<Namespaces>,
    pub(crate) controllers: Controllers,
    pub(crate) affected: Arc<AffectedQueue>,
}

impl Directory for ClusterDirectory {
    fn pod<'a>(
        &'a self,
        namespace: &'a Namespace,
        name: &'a PodName,
        expected: Option<Uid>,
    ) -> BoxFuture<'a, Result<Option<PodFacts>, DirectoryError>> {
        Box::pin(self.pods.find(namespace, name, expected))
    }

    fn service_account<'a>(
        &'a self,
        namespace: &'a Namespace,
        name: &'a ServiceAccountName,
        expected: Option<Uid>,
    ) -> BoxFuture<'a, Result<Option<ServiceAccountFacts>, DirectoryError>> {
        Box::pin(self.service_accounts.find(namespace, name, expected))
    }

    fn namespace<'a>(
        &'a self,
        name: &'a Namespace,
    ) -> BoxFuture<'a, Result<Option<NamespaceFacts>, DirectoryError>> {
        Box::pin(self.namespaces.find(name, name, None))
    }

    fn namespaces(&self, limit: usize) -> Vec<(Namespace, NamespaceFacts)> {
        self.namespaces.store.some(limit)
    }

    fn controllers<'a>(
        &'a self,
        namespace: &'a Namespace,
        first: &'a ObjectRef,
    ) -> BoxFuture<'a, ControllerChain> {
        Box::pin(self.controllers.chain(namespace, first))
    }

    fn ready(&self) -> bool {
        self.pods.store.listed() && self.service_accounts.store.listed() && self.namespaces.store.listed()
    }

    fn affected(&self) -> BoxFuture<'_, AffectedObjects> {
        Box::pin(self.affected.take())
    }
}

/// Finds objects of one kind.
pub(crate) struct Lookup<K: Kind> {
    api: Arc<ApiServer>,
    pub(crate) store: Arc<Store<K>>,
    /// How long the informer may be silent before it is not asked any more.
    silence: Duration,
    timeout: Duration,
    permits: Arc<Semaphore>,
    reads: Coalesce<(Namespace, K::Name), Found<K>>,
}

type Found<K> = Result<Option<<K as Kind>::Facts>, CallError>;

impl<K: Kind> Lookup<K> {
    pub(crate) fn new(
        api: Arc<ApiServer>,
        store: Arc<Store<K>>,
        silence: Duration,
        timeout: Duration,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(READS_AT_ONCE));
        Self { api, store, silence, timeout, permits, reads: Coalesce::new() }
    }

    /// What the informer holds, if it has heard anything lately. What it does not hold, or holds under another uid
    /// than `expected`, may be too new for it, so that is asked for, and not kept.
    async fn find(
        &self,
        namespace: &Namespace,
        name: &K::Name,
        expected: Option<Uid>,
    ) -> Result<Option<K::Facts>, DirectoryError> {
        if self.store.fresh(self.api.clock.monotonic(), self.silence)
            && let Some(facts) = self.store.get(namespace, name)
            && expected.is_none_or(|uid| uid == K::uid(&facts))
        {
            return Ok(Some(facts));
        }
        let read = self.reads.join_or((namespace.clone(), name.clone()), || {
            let read = read::<K>(
                Arc::clone(&self.api),
                Arc::clone(&self.permits),
                namespace.clone(),
                name.clone(),
                self.timeout,
            );
            let timeout = self.timeout;
            Some(Box::pin(async move {
                tokio::time::timeout(timeout, read).await.unwrap_or(Err(CallError::Timeout(timeout)))
            }))
        });
        Ok(read.ok_or(CallError::Busy)?.await?)
    }
}

/// One object as the API server has it now.
async fn read<K: Kind>(
    api: Arc<ApiServer>,
    permits: Arc<Semaphore>,
    namespace: Namespace,
    name: K::Name,
    timeout: Duration,
) -> Found<K> {
    let _permit = permits.acquire().await.map_err(|_| CallError::Busy)?;
    match api.get(K::GET, &K::path(&namespace, &name), timeout).await {
        Ok(body) => Ok(parse::<Object>(&body)?.read::<K>().map(|(_, _, facts)| facts)),
        Err(CallError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
