//! Which transactions a snapshot sees.

use std::fmt;
use std::str::FromStr;

use crate::pgoutput::Xid32;

/// The number of a transaction with its epoch: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Xid(pub u64);

impl fmt::Display for Snapshot {
    /// As PostgreSQL writes it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running: Vec<String> = self.running.iter().map(|xid| xid.0.to_string()).collect();
        write!(out, "{}:{}:{}", self.xmin.0, self.xmax.0, running.join(","))
    }
}

/// What `pg_current_snapshot()` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every transaction before this one has ended.
    pub xmin: Xid,
    /// No transaction from this one on has ended. It is not the next number to be given out:
    /// running transactions may have higher ones.
    pub xmax: Xid,
    /// Those between that have not ended, in order.
    pub running: Vec<Xid>,
}

/// Text that is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a snapshot")]
pub struct NotASnapshot(String);

impl Snapshot {
    /// Whether what this transaction did, if it committed, is seen.
    pub fn sees(&self, xid: Xid) -> bool {
        xid < self.xmin || xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// Whether whatever the other sees this one sees too.
    pub fn includes(&self, other: &Snapshot) -> bool {
        let sees_more = self.running.iter().any(|xid| other.sees(*xid));
        // Of what is between the two ends nothing is known to this one.
        let is_later = self.xmax >= other.xmax;
        is_later && !sees_more
    }

    /// The transaction that the stream means: of all with these last 32 bits the one that is nearest,
    /// because PostgreSQL never has numbers in use that are 2^31 apart.
    pub fn extend(&self, short: Xid32) -> Xid {
        let distance = short.0.wrapping_sub(self.xmax.0 as u32).cast_signed();
        Xid(self.xmax.0.saturating_add_signed(i64::from(distance)))
    }
}

impl FromStr for Snapshot {
    type Err = NotASnapshot;

    /// Reads `xmin:xmax:xip,…`.
    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        parse(text).ok_or_else(|| NotASnapshot(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Snapshot> {
    let mut parts = text.split(':');
    let mut number = || parts.next()?.parse().ok().map(Xid);
    let (xmin, xmax) = (number()?, number()?);
    let listed = parts.next()?.split(',').filter(|xid| !xid.is_empty());
    let running: Option<Vec<Xid>> = listed.map(|xid| xid.parse().ok().map(Xid)).collect();
    let mut running = running?;
    running.sort_unstable();
    Some(Snapshot {
        xmin,
        xmax,
        running,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_ended_before_it() {
        let snapshot: Snapshot = "10:20:10,14,15".parse().unwrap();
        let seen: Vec<u64> = (8..22).filter(|xid| snapshot.sees(Xid(*xid))).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 16, 17, 18, 19]);
        let quiet: Snapshot = "7:7:".parse().unwrap();
        assert!(quiet.sees(Xid(6)) && !quiet.sees(Xid(7)));
        for text in ["", "1", "1:2", "1:x:", "1:2:3,x"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_later_snapshot_includes_an_earlier_one() {
        let includes = |one: &str, other: &str| {
            let (one, other): (Snapshot, Snapshot) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.to_string().parse(), Ok(one.clone()));
            one.includes(&other)
        };
        assert!(includes("10:20:10,14", "10:20:10,14"));
        assert!(includes("10:20:10", "10:20:10,14"));
        assert!(!includes("10:20:10,14", "10:20:10"));
        assert!(!includes("10:20:", "10:21:20"));
        assert!(includes("22:22:", "10:21:20") && !includes("10:21:20", "22:22:"));
    }

    #[test]
    fn numbers_are_extended_to_the_nearest() {
        let at = |xmax: u64| Snapshot {
            xmin: Xid(xmax),
            xmax: Xid(xmax),
            running: vec![],
        };
        assert_eq!(at(20).extend(Xid32(9)), Xid(9));
        assert_eq!(
            at(20).extend(Xid32(25)),
            Xid(25),
            "assigned after the snapshot"
        );
        let wrapped = at((3 << 32) + 5);
        assert_eq!(wrapped.extend(Xid32(4)), Xid((3 << 32) + 4));
        assert_eq!(
            wrapped.extend(Xid32(u32::MAX)),
            Xid((3 << 32) - 1),
            "before the wrap"
        );
        let before = at((3 << 32) - 2);
        assert_eq!(
            before.extend(Xid32(3)),
            Xid((3 << 32) + 3),
            "after the wrap"
        );
    }
}
