//! Numbers for ratios and tables.

use std::time::Duration;

/// A count as a float: none here comes near 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count of a benchmark comes near 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// How many a second.
pub(crate) fn per_second(count: u64, took: Duration) -> f64 {
    float(count) / took.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Microseconds each.
pub(crate) fn micros_each(total: Duration, count: u64) -> f64 {
    total.as_secs_f64() * 1e6 / float(count.max(1))
}

/// In microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// In whole nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Rounded for people and JSON: one decimal below 1000, none above.
pub(crate) fn rounded(value: f64) -> f64 {
    if value.abs() < 1000.0 { (value * 10.0).round() / 10.0 } else { value.round() }
}

/// A well-mixed number for each number (`SplitMix64`): repeatable, and spread as real keys are.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_costs() {
        assert!((per_second(500, Duration::from_millis(250)) - 2000.0).abs() < 1e-6);
        assert!((micros_each(Duration::from_millis(90), 2000) - 45.0).abs() < 1e-9);
        assert!((rounded(12.345) - 12.3).abs() < 1e-9 && (rounded(12_345.6) - 12_346.0).abs() < 1e-9);
    }
}
