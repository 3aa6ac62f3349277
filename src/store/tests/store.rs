//! The store's behaviour, through its public face.
#![expect(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "tests")]

#[path = "store/backup.rs"]
mod backup;
#[path = "store/bases.rs"]
mod bases;
#[path = "store/contract.rs"]
mod contract;
#[path = "store/disk.rs"]
mod disk;
#[path = "store/edges.rs"]
mod edges;
#[path = "store/elf.rs"]
mod elf;
#[path = "store/fixture.rs"]
mod fixture;
#[path = "store/forgetting.rs"]
mod forgetting;
#[path = "store/full.rs"]
mod full;
#[path = "store/memory.rs"]
mod memory;
#[path = "store/model.rs"]
mod model;
#[path = "store/opening.rs"]
mod opening;
#[path = "store/power.rs"]
mod power;
#[path = "store/restore.rs"]
mod restore;
#[path = "store/shims.rs"]
mod shims;
#[path = "store/tampered.rs"]
mod tampered;
#[path = "store/teardown.rs"]
mod teardown;
#[path = "store/unsynced.rs"]
mod unsynced;
