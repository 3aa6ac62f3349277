//! Policy: `Owner`, `Target` and `Grant` objects of API group `dayfly.dev/v1alpha1`, and the one function that decides.
//!
//! Start reading at [`spec`] (what people write), then [`load`] (YAML with located problems), then [`decide`]: the one
//! evaluation function, [`PolicySet::decide`], which everything that asks "what may this workload have" goes through.
//!
//! Denied unless granted. Validity is per object: an invalid object grants nothing, is reported as a [`Problem`], and
//! never freezes the others.

mod ceiling;
pub mod decide;
pub mod folder;
mod kind;
pub mod load;
mod object;
pub mod problem;
pub mod set;
pub mod spec;
pub mod ttl;
mod yaml;

pub use decide::{Decision, Denial, Question};
pub use folder::{SourceError, load_folder};
pub use kind::Kind;
pub use load::{File, Loaded, Reserved, load};
pub use problem::{Problem, Severity};
pub use set::{Grant, Owner, Ownership, PolicySet, Target};
