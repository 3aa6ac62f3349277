//! By what an API server shows who it is to an aggregated API, and in which headers it says who is asking: the ConfigMap that it
//! writes for such APIs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ports::DirectoryError;
use http::Request;
use serde::Deserialize;

use crate::api::{ApiServer, CallError, parse};

const WHAT: &str =
    "get configmap extension-apiserver-authentication of namespace kube-system: deploy/sessions.yaml";
const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

/// What the ConfigMap `kube-system/extension-apiserver-authentication` says of requests that an API server forwards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrontProxy {
    /// `requestheader-client-ca-file`: PEM of the CAs that its client certificate is by. Without it nothing can be believed.
    pub client_ca: String,
    /// `requestheader-allowed-names`: its certificate's common name is one of these; any, where there are none.
    pub allowed_names: Vec<String>,
    /// `requestheader-username-headers`: of the first that is there, the value is the user name.
    pub username_headers: Vec<String>,
    /// `requestheader-uid-headers`: likewise the uid.
    pub uid_headers: Vec<String>,
    /// `requestheader-group-headers`: every value of each is a group.
    pub group_headers: Vec<String>,
    /// `requestheader-extra-headers-prefix`: what comes after is the name of an extra.
    pub extra_prefixes: Vec<String>,
}

/// Where to read it.
#[derive(Clone)]
pub struct FrontProxySource {
    api: Arc<ApiServer>,
    timeout: Duration,
}

#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl FrontProxySource {
    pub(crate) const fn new(api: Arc<ApiServer>, timeout: Duration) -> Self {
        Self { api, timeout }
    }

    /// What it says now.
    ///
    /// # Errors
    /// When it cannot be read, or has nothing by which a request could be believed.
    pub async fn read(&self) -> Result<FrontProxy, DirectoryError> {
        let request = Request::get(PATH).body(Vec::new());
        let answer = self.api.ask(WHAT, request, self.timeout).await.map_err(|error| match error {
            CallError::Forbidden(_) => DirectoryError {
                why: format!("the broker itself may not {WHAT} says what it needs"),
                retry_after: error.retry_after(),
            },
            error => error.into(),
        })?;
        let ConfigMap { data } = parse(&answer)?;
        front_proxy(&data).map_err(|why| DirectoryError { why, retry_after: Duration::from_secs(5) })
    }
}

fn front_proxy(data: &BTreeMap<String, String>) -> Result<FrontProxy, String> {
    let list = |name: &str| match data.get(name) {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str::<Vec<String>>(text)
            .map_err(|_| format!("extension-apiserver-authentication: {name} is no list of names")),
    };
    let read = FrontProxy {
        client_ca: data.get("requestheader-client-ca-file").cloned().unwrap_or_default(),
        allowed_names: list("requestheader-allowed-names")?,
        username_headers: list("requestheader-username-headers")?,
        uid_headers: list("requestheader-uid-headers")?,
        group_headers: list("requestheader-group-headers")?,
        extra_prefixes: list("requestheader-extra-headers-prefix")?,
    };
    // A prefix of nothing would make every header an extra.
    let blank = [&read.username_headers, &read.uid_headers, &read.group_headers, &read.extra_prefixes];
    if blank.into_iter().flatten().any(|name| name.trim().is_empty()) {
        return Err("extension-apiserver-authentication names a header of no name".to_owned());
    }
    if read.client_ca.trim().is_empty() || read.username_headers.is_empty() {
        return Err("the API server has no front proxy: it needs --requestheader-client-ca-file, \
                    --requestheader-username-headers and --proxy-client-cert-file"
            .to_owned());
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(change: impl FnOnce(&mut BTreeMap<String, String>)) -> BTreeMap<String, String> {
        let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut data = BTreeMap::from([
            entry("requestheader-client-ca-file", "-----BEGIN CERTIFICATE-----"),
            entry("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            entry("requestheader-username-headers", r#"["X-Remote-User"]"#),
            entry("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            entry("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ]);
        change(&mut data);
        data
    }

    #[test]
    fn it_says_who_may_forward_and_in_which_headers() {
        let read = front_proxy(&data(|_| {})).unwrap();
        assert_eq!(read.allowed_names, ["front-proxy-client"]);
        assert_eq!(read.username_headers, ["X-Remote-User"]);
        assert!(read.uid_headers.is_empty(), "where none is named, none is read");
    }

    #[test]
    fn an_api_server_without_front_proxy_is_never_believed() {
        for missing in ["requestheader-client-ca-file", "requestheader-username-headers"] {
            let why = front_proxy(&data(|data| drop(data.remove(missing)))).unwrap_err();
            assert!(why.contains("no front proxy"), "{missing}: {why}");
        }
        for name in ["requestheader-allowed-names", "requestheader-extra-headers-prefix"] {
            let bad = data(|data| drop(data.insert(name.to_owned(), "X-Remote-User".to_owned())));
            assert!(front_proxy(&bad).unwrap_err().contains(name));
        }
        let every = data(|data| {
            drop(data.insert("requestheader-extra-headers-prefix".to_owned(), r#"[""]"#.to_owned()));
        });
        assert!(front_proxy(&every).unwrap_err().contains("no name"));
    }
}
