//! The commands to try while dev is up.

use std::path::Path;

use anyhow::Context;

use super::people::Person;
use super::world::World;

/// What to type in another terminal: exact, with everything it needs.
pub(crate) fn to_try(world: &World) -> anyhow::Result<String> {
    let folder = world.folder().display();
    let program = std::env::current_exe()?;
    let bin = program.parent().context("the program is in no folder")?;
    Ok(text(&world.url(), &folder.to_string(), bin))
}

fn text(url: &str, folder: &str, bin: &Path) -> String {
    let [workload, verifier, operator] = [Person::Payments, Person::Verifier, Person::Operator]
        .map(|it| format!("{folder}/{}", it.token_file()));
    format!(
        r"All steps were as they should be. To try more, in another terminal:

    export PATH={bin}:$PATH DAYFLY_SERVER={url} DAYFLY_CA_FILE={folder}/ca.crt

    export DAYFLY_TOKEN_FILE={workload}     # a workload
    dayfly whoami
    dayfly issue --target orders --ttl 2m
    dayfly issue --target orders -o credential > {folder}/credential

    export DAYFLY_TOKEN_FILE={verifier}     # a verifier
    dayfly introspect < {folder}/credential

    export DAYFLY_TOKEN_FILE={operator}     # an operator
    dayfly owners list
    dayfly leases list --owner payments --active
    dayfly events list --owner payments
    dayfly revoke --owner payments --after hold --reason 'trying it' --dry-run
    dayfly revoke --owner payments --after reissue --reason 'trying it'

    dayfly policy check {folder}/policy     # change it: the broker reads it again

Ctrl-C ends it.
",
        bin = bin.display(),
    )
}
