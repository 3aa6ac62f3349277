//! Policy: `Owner`, `Target` and `Grant` objects of API group `dayfly.dev/v1alpha1`, and the one function that decides.
//!
//! Start reading at [`spec`] (what people write), then [`load`] (YAML with located problems), then [`decide`]: the one
//! evaluation function, [`PolicySet::decide`], which everything that asks "what may this workload have" goes through.
//! [`explain`] is the same walk, told; [`table`] and [`diff`] ask it offline.
//!
//! Denied unless granted. Validity is per object: an invalid object grants nothing, is reported as a [`Problem`], and
//! never freezes the others.

mod beyond;
mod ceiling;
mod changes;
mod claimed;
pub mod decide;
pub mod diff;
pub mod explain;
pub mod folder;
mod kind;
pub mod load;
mod object;
pub mod owners;
pub mod parts;
pub mod problem;
pub mod set;
pub mod spec;
pub mod table;
mod trace;
pub mod ttl;
mod yaml;

pub use changes::changed_objects;
pub use decide::{Audited, Decision, Denial, Question, UnownedGrace};
pub use explain::{Answer, Checked, Explanation, Told, Verdict, shortened};
pub use folder::{SourceError, load_folder, load_folder_after};
pub use kind::Kind;
pub use load::{File, Loaded, Reserved, load};
pub use owners::{Ownership, TopController, Who};
pub use problem::{Problem, Severity};
pub use set::{Grant, Owner, PolicySet, Target};
pub use table::rfc_3339;
