//! What dev runs: a cluster, its people, and a broker that serves it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dayfly_client::Client;
use dayfly_core::clock::SystemClock;
use dayfly_core::ports::LeaseStore;
use dayfly_dev::StandIn;
use dayfly_server::{Config, Running, StartOptions};

use super::folder::Folder;
use super::people::Person;
use super::policy;
use super::tls::Tls;

/// How the configuration that dev writes begins.
pub(crate) const MARK: &str = "# Written by `dayfly dev`.";
/// How long a token lives, as the kubelet's do.
const TOKEN_SECS: u64 = 3600;

/// A cluster, its people, and a broker that serves it.
pub(crate) struct World {
    // Fields are dropped in order: the folder last.
    running: Running,
    stand_in: StandIn,
    pods: [String; Person::ALL.len()],
    folder: Folder,
}

impl World {
    /// Starts it all in this folder, or in a temporary one.
    pub(crate) async fn start(dir: Option<PathBuf>, listen: SocketAddr) -> anyhow::Result<Self> {
        let folder = Folder::open(dir)?;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let stand_in = StandIn::start(loopback, Arc::new(SystemClock::new())).await?;
        let mut pods = [const { String::new() }; Person::ALL.len()];
        for (pod, person) in pods.iter_mut().zip(Person::ALL) {
            let namespace = person.namespace();
            stand_in.create_namespace(namespace)?;
            stand_in.create_service_account(namespace, person.service_account())?;
            *pod = stand_in.create_pod_of(
                namespace,
                person.deployment(),
                person.pod(),
                person.service_account(),
            )?;
        }
        stand_in.allow(&Person::Operator.username(), "*", "owners", None);
        stand_in.allow(&Person::Operator.username(), "list", "events", None);
        stand_in.broker_kubeconfig(folder.root())?;

        let tls = Tls::generate()?;
        folder.write("ca.crt", &tls.ca)?;
        folder.write("server.crt", &tls.certificate)?;
        folder.write("server.key", &tls.key)?;
        for (name, text) in policy::FILES {
            folder.write_first(&format!("policy/{name}"), text)?;
        }
        folder.write("dayfly.toml", &configuration(listen, stand_in.issuer()))?;
        let config = Config::load(&folder.path("dayfly.toml"))?;
        let running = dayfly_server::start(config, StartOptions::default()).await?;
        let world = Self { running, stand_in, pods, folder };
        for person in Person::ALL {
            world.write_token(person)?;
        }
        Ok(world)
    }

    /// Where the broker is.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.running.addr())
    }

    /// Where the files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.root()
    }

    /// The store, to read the audit log.
    pub(crate) fn store(&self) -> Arc<dyn LeaseStore> {
        self.running.store()
    }

    /// A client that calls as this person, by the public API.
    pub(crate) fn client(&self, person: Person) -> anyhow::Result<Client> {
        let client = Client::builder(self.url())
            .ca_file(self.folder.path("ca.crt"))
            .token_file(self.folder.path(person.token_file()))
            .call_timeout(Duration::from_secs(20))
            // The broker may not have heard all of its cluster yet.
            .attempts(20);
        Ok(client.build()?)
    }

    /// Writes a new token of this person, as the kubelet does for a projected volume.
    pub(crate) fn write_token(&self, person: Person) -> anyhow::Result<()> {
        let uid = Person::ALL.iter().zip(&self.pods).find_map(|(it, uid)| (*it == person).then_some(uid));
        let pod = uid.map(|uid| (person.pod(), uid.as_str()));
        let (namespace, account) = (person.namespace(), person.service_account());
        let token = self.stand_in.token(namespace, account, person.audience(), pod, TOKEN_SECS)?;
        self.folder.write(person.token_file(), &token)
    }

    /// Stops the broker, then the cluster; a temporary folder goes.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let stopped = self.running.stop().await.context("the broker did not stop in order");
        self.stand_in.shutdown().await;
        stopped
    }
}

fn configuration(listen: SocketAddr, cluster: &str) -> String {
    format!(
        r#"{MARK}
issuer = "https://dayfly.dev.internal"
listen = "{listen}"

[tls]
cert_file = "server.crt"
key_file = "server.key"

[store]
dir = "store"

[store.witness]
file = "witness"
# Only for dev: a witness belongs on another file system than the store.
danger_witness_beside_store = true

[keys]
kek_file = "kek"

[[cluster]]
name = "dev"
issuer = "{cluster}"
kubeconfig = "broker.kubeconfig"
policy = "policy"

[limits]
drain_secs = 3
"#
    )
}
