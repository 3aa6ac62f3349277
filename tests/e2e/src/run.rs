//! Running a test, and waiting in it.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Runtime;

/// No test may take longer.
const LONGEST: Duration = Duration::from_secs(120);

/// One runtime for all tests of a binary: what they share (clusters, brokers, connections) outlives each of them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "without a runtime there are no tests")]
    Runtime::new().expect("a tokio runtime")
});

/// Runs a test to its end, for two minutes at most.
pub fn run(test: impl Future<Output = ()>) {
    run_for(LONGEST, test);
}

/// Runs a test to its end, for so long at most.
pub fn run_for(longest: Duration, test: impl Future<Output = ()>) {
    let ended = RUNTIME.block_on(async { tokio::time::timeout(longest, test).await });
    assert!(ended.is_ok(), "the test does not end: it was given {longest:?}");
}

/// Polls the condition until it holds, for 60 seconds at most.
///
/// # Errors
/// The condition's own, at once; and that it does not hold in time.
pub async fn until(condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    crate::process::until(condition).await
}
