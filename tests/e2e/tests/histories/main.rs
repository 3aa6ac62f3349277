//! Storms of issue, renew, introspect and revoke from several clients: what they were answered is linearizable, by a model
//! of leases and rules that `tests/histories` checks with porcupine. `docs/decisions/linearizability.md` says what that
//! means, and what it leaves out.
//!
//! Twenty histories, half of them with kill -9 and clock jumps; 200 with `DAYFLY_LONG=1`. `DAYFLY_SEED` repeats the choices
//! of a run (not its timing), `DAYFLY_HISTORIES` keeps its histories in that folder.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dice;
mod history;
mod storm;

use std::time::Duration;

use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::run_for;
use dayfly_e2e::world::World;

use crate::dice::Dice;
use crate::history::{Checked, Histories, Verdict};
use crate::storm::{Disturbance, Storm};

#[test]
fn histories_are_linearizable() {
    run_for(at_most(), async {
        all_linearizable("calm", Disturbance::None, Options::default(), half()).await;
    });
}

#[test]
fn histories_with_kills_and_clock_jumps_are_linearizable() {
    run_for(at_most(), async {
        let options = Options { clock_ahead: Some(0), ..Options::default() };
        all_linearizable("disturbed", Disturbance::KillsAndJumps, options, half()).await;
    });
}

/// As many operations are enough to tell a broker that is broken; and they tell it from one that was built and wired in
/// the same way, and is not.
#[test]
fn a_broken_broker_is_caught() {
    let histories = if is_long() { 10 } else { 1 };
    run_for(at_most(), async {
        let options = |how| Options { broken: Some(how), ..Options::default() };
        all_linearizable("not broken", Disturbance::None, options("nothing"), histories).await;
        for how in ["coverage", "stale-rules"] {
            let checked = storms(how, Disturbance::None, options(how), histories).await;
            for verdict in &checked.verdicts {
                println!("broken {how}: {verdict}");
                assert!(verdict.is_illegal(), "a broker with broken {how} passes: {verdict}");
            }
        }
    });
}

async fn all_linearizable(name: &str, disturbance: Disturbance, options: Options, histories: usize) {
    let checked = storms(name, disturbance, options, histories).await;
    let bad: Vec<_> =
        checked.verdicts.iter().filter(|verdict| !verdict.is_ok()).map(Verdict::to_string).collect();
    if !bad.is_empty() {
        let kept = checked.folder.keep();
        panic!(
            "{name}, DAYFLY_SEED={}: not linearizable, and kept in {} with porcupine's visualisation (FILE.html):\n{}",
            checked.seed,
            kept.display(),
            bad.join("\n")
        );
    }
}

/// Runs so many storms on one broker, one after another, and has their histories checked.
async fn storms(name: &str, disturbance: Disturbance, mut options: Options, histories: usize) -> Checked {
    let seed = Dice::seed();
    println!("{name}: {histories} histories, DAYFLY_SEED={seed}");
    options.limits.extend(storm::LIMITS);
    let world = World::with_own_broker(Kind::StandIn, options).await.unwrap();
    let mut recorded = Histories::new(name, seed);
    let mut storms = Storm::prepare(&world, histories).await;
    for (number, storm) in (0_u64..).zip(&mut storms) {
        let history = storm.run(disturbance, seed.wrapping_add(number)).await;
        println!("{name} {number}: {history}");
        history.is_of_a_storm(disturbance);
        recorded.add(history);
    }
    world.broker().stop().await.unwrap();
    assert_eq!(world.broker().log().matches("panicked").count(), 0, "{}", world.broker().log());
    recorded.check(&world.broker().store_dir()).await
}

fn half() -> usize {
    if is_long() { 100 } else { 10 }
}

fn at_most() -> Duration {
    Duration::from_secs(if is_long() { 7200 } else { 300 })
}

fn is_long() -> bool {
    std::env::var_os("DAYFLY_LONG").is_some()
}
