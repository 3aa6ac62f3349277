//! sled does what every engine does.

use dayfly_store::contract::CASES;
use dayfly_store::verify;

use crate::fixture::Fixture;

#[tokio::test]
async fn sled_passes_the_contract() {
    for (name, case) in CASES {
        println!("{name}");
        let fixture = Fixture::new();
        case(&fixture).await;
        fixture.take();
        let report = verify(&fixture.dir()).unwrap();
        assert!(report.problems.is_empty(), "{name}: {:?}", report.problems);
    }
}
