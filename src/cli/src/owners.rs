//! `dayfly owners`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use dayfly_client::v1;
use serde::Serialize;

use crate::connect::Connection;
use crate::explain::moment;
use crate::output::{Output, plain, table};

/// Looks at owners.
#[derive(Subcommand)]
pub(crate) enum Owners {
    /// Lists the owners that you may see, with their namespaces.
    List(List),
    /// Lists the namespaces that no Owner answers for: their workloads get nothing.
    ///
    /// With what was asked for there in vain since the broker started, and the Owners whose namespaces have some of the
    /// same label keys: whoever knows them may know whose it is.
    Unowned(List),
}

/// How to print them.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    owners: Vec<OwnerView<'a>>,
}

#[derive(Serialize)]
struct OwnerView<'a> {
    name: &'a str,
    cluster: &'a str,
    display_name: &'a str,
    contacts: &'a [String],
    namespaces: &'a [String],
    /// Each `KEY=VALUE,KEY=VALUE`.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    namespace_labels: &'a [String],
}

impl Owners {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let list = match self {
            Self::List(list) => list,
            Self::Unowned(list) => return unowned(&list, connection).await,
        };
        let client = connection.client()?;
        let mut owners = Vec::new();
        let mut request = v1::ListOwnersRequest { page_size: 1000, page_token: String::new() };
        loop {
            let page = client.list_owners(request.clone()).await?;
            owners.extend(page.owners);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        list.output.answer(&View { owners: owners.iter().map(view).collect() }, || text(&owners))
    }
}

async fn unowned(list: &List, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let mut all = v1::ListUnownedResponse::default();
    let mut request = v1::ListUnownedRequest { page_size: 1000, page_token: String::new() };
    loop {
        let page = client.list_unowned(request.clone()).await?;
        all.namespaces.extend(page.namespaces);
        all.who_may_change = page.who_may_change;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    list.output.answer(&unowned_view(&all), || unowned_text(&all))
}

#[derive(Serialize)]
struct UnownedView<'a> {
    namespaces: Vec<UnownedNamespaceView<'a>>,
    who_may_change: &'a str,
}

#[derive(Serialize)]
struct UnownedNamespaceView<'a> {
    cluster: &'a str,
    namespace: &'a str,
    contested: bool,
    exists: bool,
    denied: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_denied: String,
    label_keys: &'a [String],
    related: &'a [String],
}

fn unowned_view(all: &v1::ListUnownedResponse) -> UnownedView<'_> {
    let namespaces = all.namespaces.iter().map(|found| UnownedNamespaceView {
        cluster: &found.cluster,
        namespace: &found.namespace,
        contested: found.contested,
        exists: found.exists,
        denied: found.denied,
        last_denied: moment(found.last_denied_millis),
        label_keys: &found.label_keys,
        related: &found.related,
    });
    UnownedView { namespaces: namespaces.collect(), who_may_change: &all.who_may_change }
}

fn unowned_text(all: &v1::ListUnownedResponse) -> String {
    let rows: Vec<_> = all
        .namespaces
        .iter()
        .map(|found| {
            let why = match (found.contested, found.exists) {
                (true, _) => "several claim it",
                (false, true) => "none claims it",
                (false, false) => "it is gone",
            };
            [
                found.namespace.clone(),
                found.cluster.clone(),
                why.to_owned(),
                found.denied.to_string(),
                moment(found.last_denied_millis),
                found.related.join(","),
                found.label_keys.join(","),
            ]
        })
        .collect();
    let head = ["NAMESPACE", "CLUSTER", "OWNER", "DENIED", "LAST DENIED", "SHARES LABELS WITH", "LABELS"];
    format!("{}\nWho may change that: {}\n", table(head, &rows), plain(&all.who_may_change))
}

fn view(owner: &v1::Owner) -> OwnerView<'_> {
    OwnerView {
        name: &owner.name,
        cluster: &owner.cluster,
        display_name: &owner.display_name,
        contacts: &owner.contacts,
        namespaces: &owner.namespaces,
        namespace_labels: &owner.namespace_labels,
    }
}

fn text(owners: &[v1::Owner]) -> String {
    let rows: Vec<_> = owners
        .iter()
        .map(|owner| {
            let (namespaces, contacts) = (owner.namespaces.join(","), owner.contacts.join(", "));
            let labels = owner.namespace_labels.join(" or ");
            let (name, cluster, display) = (&owner.name, &owner.cluster, &owner.display_name);
            [name.clone(), cluster.clone(), display.clone(), namespaces, labels, contacts]
        })
        .collect();
    table(["OWNER", "CLUSTER", "NAME", "NAMESPACES", "BY LABEL", "CONTACTS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_listed_with_the_labels_that_they_claim_by() {
        let owner = v1::Owner {
            name: "payments".to_owned(),
            cluster: "east".to_owned(),
            display_name: "Payments".to_owned(),
            contacts: vec!["#payments".to_owned()],
            namespaces: vec!["ledger".to_owned(), "payments".to_owned()],
            namespace_labels: vec!["team=payments,tier=1".to_owned(), "team=ledger".to_owned()],
        };
        insta::assert_snapshot!("owners_text", text(std::slice::from_ref(&owner)));
        insta::assert_snapshot!("owners_json", serde_json::to_string_pretty(&view(&owner)).unwrap());
    }

    #[test]
    fn namespaces_without_owner_as_table_and_json() {
        let all = v1::ListUnownedResponse {
            namespaces: vec![
                v1::UnownedNamespace {
                    cluster: "east".to_owned(),
                    namespace: "billing".to_owned(),
                    exists: true,
                    denied: 7,
                    last_denied_millis: 1_795_435_200_000,
                    label_keys: vec!["team".to_owned()],
                    related: vec!["checkout".to_owned(), "payments".to_owned()],
                    ..Default::default()
                },
                v1::UnownedNamespace {
                    cluster: "east".to_owned(),
                    namespace: "shared".to_owned(),
                    contested: true,
                    exists: true,
                    ..Default::default()
                },
            ],
            who_may_change: "ask `kubectl who-can`.".to_owned(),
            ..Default::default()
        };
        insta::assert_snapshot!("unowned_text", unowned_text(&all));
        insta::assert_snapshot!("unowned_json", serde_json::to_string_pretty(&unowned_view(&all)).unwrap());
    }
}
