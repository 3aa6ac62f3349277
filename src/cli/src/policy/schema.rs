//! `dayfly policy schema`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::output;

/// Of which kind.
#[derive(Args)]
pub(crate) struct Schema {
    /// The kind; by default, whichever of them a document is.
    #[arg(value_enum, default_value_t, value_name = "KIND")]
    kind: Kind,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Any of the kinds.
    #[default]
    Policy,
    /// Owner.
    Owner,
    /// Target.
    Target,
    /// Grant.
    Grant,
    /// PolicyTest.
    PolicyTest,
}

impl Schema {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        output::print(match self.kind {
            Kind::Policy => include_str!("../../../../docs/reference/schemas/policy.json"),
            Kind::Owner => include_str!("../../../../docs/reference/schemas/owner.json"),
            Kind::Target => include_str!("../../../../docs/reference/schemas/target.json"),
            Kind::Grant => include_str!("../../../../docs/reference/schemas/grant.json"),
            Kind::PolicyTest => include_str!("../../../../docs/reference/schemas/policy-test.json"),
        })
    }
}
