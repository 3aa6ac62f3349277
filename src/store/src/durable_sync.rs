//! The one `unsafe` of the workspace: sled's log writes are durable before sled believes so.
//!
//! On Linux sled 0.34 takes `sync_file_range(2)` for durability, which it is not: it neither flushes the disk's cache
//! nor writes the file's metadata. sled calls it through libc, so a binary that defines the symbol is called instead;
//! this definition has `fdatasync(2)` do what sled believes. `docs/decisions/sled-durability.md` has the evidence.
//! Every start proves that sled really calls it ([`calls`] moves on the first flush), else the store is not opened.

use std::ffi::{c_int, c_uint};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// How often sled has synced in this process.
pub(crate) fn calls() -> u64 {
    CALLS.load(Ordering::SeqCst)
}

/// How many of those syncs failed. It only grows: a commit during which it grew is not durable.
pub(crate) fn failures() -> u64 {
    FAILURES.load(Ordering::SeqCst)
}

#[expect(unsafe_code, reason = "libc's own declaration; std has no fdatasync of a raw file descriptor")]
unsafe extern "C" {
    // libc's and not a raw system call, so that fault shims of tests see it.
    safe fn fdatasync(fd: c_int) -> c_int;
}

/// What sled calls after each write to its log. Same contract as `sync_file_range(2)`: 0, or -1 with `errno` set.
#[expect(unsafe_code, reason = "sled calls this symbol through libc; see the module's documentation")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn sync_file_range(fd: c_int, _offset: i64, _bytes: i64, _flags: c_uint) -> c_int {
    CALLS.fetch_add(1, Ordering::SeqCst);
    loop {
        if fdatasync(fd) == 0 {
            return 0;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            FAILURES.fetch_add(1, Ordering::SeqCst);
            return -1;
        }
    }
}
