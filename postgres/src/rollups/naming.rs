//! Names of generation tables, and numbers for locks.

use crate::identifier::{IDENTIFIER_BYTES_MAX, truncate_to_bytes};

/// The table of one generation: `sales_by_day_v3`.
///
/// A name that is too long is cut, and a hash of the whole keeps it apart from others that begin
/// alike.
pub(super) fn table_name(rollup: &str, generation: i64) -> String {
    let suffix = format!("_v{generation}");
    let room = IDENTIFIER_BYTES_MAX.saturating_sub(suffix.len());
    if rollup.len() <= room {
        return format!("{rollup}{suffix}");
    }
    let hash = format!("_{:08x}", hash(rollup));
    let beginning = truncate_to_bytes(rollup, room.saturating_sub(hash.len()));
    format!("{beginning}{hash}{suffix}")
}

/// FNV-1a: the same in every process and every version, which the standard library's hash is not.
pub(super) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_readable() {
        assert_eq!(table_name("ssb_city_month", 3), "ssb_city_month_v3");
    }

    #[test]
    fn long_names_fit_and_stay_apart() {
        let (one, other) = (
            format!("{}1", "ä".repeat(40)),
            format!("{}2", "ä".repeat(40)),
        );
        let (one, other) = (table_name(&one, 12), table_name(&other, 12));
        assert_ne!(one, other);
        assert!(
            one.len() <= IDENTIFIER_BYTES_MAX && one.ends_with("_v12"),
            "{one}"
        );
        assert_eq!(table_name(&"x".repeat(60), 1).len(), 63);
        assert!(table_name(&"x".repeat(61), 1).len() <= 63);
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash("foobar"), 0xbf9c_f968);
    }
}
