//! `dayfly owners`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use dayfly_client::v1;
use serde::Serialize;

use crate::connect::Connection;
use crate::output::{Output, table};

/// Looks at owners.
#[derive(Subcommand)]
pub(crate) enum Owners {
    /// Lists the owners that you may see, with their namespaces.
    List(List),
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
}

impl Owners {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let Self::List(list) = self;
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

fn view(owner: &v1::Owner) -> OwnerView<'_> {
    OwnerView {
        name: &owner.name,
        cluster: &owner.cluster,
        display_name: &owner.display_name,
        contacts: &owner.contacts,
        namespaces: &owner.namespaces,
    }
}

fn text(owners: &[v1::Owner]) -> String {
    let rows: Vec<_> = owners
        .iter()
        .map(|owner| {
            let (namespaces, contacts) = (owner.namespaces.join(","), owner.contacts.join(", "));
            [owner.name.clone(), owner.cluster.clone(), owner.display_name.clone(), namespaces, contacts]
        })
        .collect();
    table(["OWNER", "CLUSTER", "NAME", "NAMESPACES", "CONTACTS"], &rows)
}
