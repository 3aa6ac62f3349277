//! What counting takes.

use std::process::Command;

use super::*;

/// Live leases in the process whose memory is looked at.
const LEASES: u32 = 300_000;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Counts leases, of so many pods, each of a service account of its own.
fn counted(pods: u32) -> Live {
    let start = Timestamp::from_secs(1_795_435_200);
    let mut live = Live::new(LEASES as usize);
    for n in 0..LEASES {
        let (n, of) = (u64::from(n), u64::from(n % pods));
        // As fingerprints are: spread over all numbers.
        let key = |kind: u64, of: u64| (of * 8 + kind).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let keys = [key(0, of), key(1, of), key(2, of / 4), key(3, of / 4), key(4, 0)];
        let at = start.plus(std::time::Duration::from_millis(n));
        let id = LeaseId::from_u128(LeaseId::first_at(at).as_u128() + u128::from(n));
        live.add(id, keys, at.plus(std::time::Duration::from_secs(300)), Position::ZERO);
    }
    live
}

/// Bytes of each live lease, of so many pods, in a process of its own.
fn bytes_a_lease(pods: u32) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "live::tests::counting_workload", "--nocapture", "--test-threads=1"])
        .env("DAYFLY_LIVE_PODS", pods.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let (_, bytes) = said.split_once("bytes a live lease: ").unwrap();
    bytes.split_whitespace().next().unwrap().parse().unwrap()
}

/// What that process does; nothing when run as a test.
#[test]
fn counting_workload() {
    let Some(pods) = std::env::var("DAYFLY_LIVE_PODS").ok().and_then(|n| n.parse().ok()) else { return };
    let before = resident_bytes();
    let live = counted(pods);
    println!("bytes a live lease: {}", (resident_bytes() - before) / u64::from(LEASES));
    assert_eq!(live.leases.len(), LEASES as usize);
}

#[test]
fn a_live_lease_takes_little_memory() {
    for (pods, most) in [(2000, 120), (LEASES, 400)] {
        let bytes = bytes_a_lease(pods);
        println!("{LEASES} live leases of {pods} pods take {bytes} bytes each");
        assert!((40..=most).contains(&bytes), "{bytes} bytes a live lease of {pods} pods; at most {most}");
    }
}

#[test]
fn what_ends_is_forgotten_a_part_at_a_time() {
    let mut live = counted(10);
    let first = live.ends.first_key_value().map(|(end, _)| Timestamp::from_secs(u64::from(*end))).unwrap();
    let ends = |live: &Live| LEASES as usize - live.leases.len();
    live.expire(first.minus(std::time::Duration::from_secs(1)), usize::MAX);
    assert_eq!(ends(&live), 0);
    live.expire(first.plus(std::time::Duration::from_secs(2)), 1500);
    assert!((1400..=1500).contains(&ends(&live)), "{}", ends(&live));
    live.expire(first.plus(std::time::Duration::from_secs(3600)), usize::MAX);
    assert_eq!((ends(&live), live.ends.len()), (LEASES as usize, 0));
    assert!(live.by_key.is_empty(), "nothing counts");
}
