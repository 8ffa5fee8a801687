//! What is known of time zones without asking for their rules.

/// How a zone's clocks differ from UTC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Never.
    Utc,
    /// As the tz database says of this name. What a proof needs of it is a
    /// [`Premise`](crate::premise::Premise), which the server is asked about.
    Named,
    /// Perhaps by any number of hours: offsets and rules that a session makes up itself.
    Other,
}

/// From this day on zones may be asked to keep to quarters of an hour. Before it almost none did; the last
/// to begin were Pacific/Kiritimati's islands on the first of the month.
pub(crate) const QUARTER_HOURS_SINCE: &str = "1979-10-02";

/// Names of UTC, which as abbreviations mean the same.
const ALWAYS_UTC: [&str; 4] = ["utc", "gmt", "uct", "zulu"];

/// Places whose names are as short as abbreviations and none in any of the sets that PostgreSQL comes with.
const SHORT_PLACES: [&str; 6] = ["cuba", "egypt", "eire", "iran", "japan", "libya"];

/// All abbreviations in these sets are that short, but for those that end with `DST`.
const ABBREVIATION_LETTERS_MAX: usize = 5;

impl Zone {
    /// Whether the name may be an abbreviation: then `timezone_abbreviations`, and from PostgreSQL 18 on the session's own zone,
    /// decide what it means, before it is looked for among the zones.
    pub(crate) fn may_be_abbreviation(name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let is_short = name.len() <= ABBREVIATION_LETTERS_MAX || name.ends_with("dst");
        let is_known = ALWAYS_UTC.contains(&&*name) || SHORT_PLACES.contains(&&*name);
        is_short && !is_known && name.bytes().all(|byte| byte.is_ascii_alphabetic())
    }

    /// The zone that a setting or AT TIME ZONE names.
    pub(crate) fn named(name: &str) -> Zone {
        // A rule of the session's own has an offset in digits.
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'_'));
        match name {
            "UTC" | "GMT" | "UCT" | "Zulu" | "Universal" => Zone::Utc,
            "Etc/UTC" | "Etc/GMT" | "Etc/UCT" | "Etc/Zulu" | "Etc/Universal" => Zone::Utc,
            _ if is_name && !name.is_empty() => Zone::Named,
            _ => Zone::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_may_mean_something_else_in_another_session() {
        for name in ["IST", "est", "CET", "MSK", "CETDST", "EASST", "Z", ""] {
            assert!(Zone::may_be_abbreviation(name), "{name}");
        }
        for name in [
            "UTC",
            "Europe/Berlin",
            "Japan",
            "Singapore",
            "GB-Eire",
            "EST5EDT",
            "<+01>-01",
            "+3",
        ] {
            assert!(!Zone::may_be_abbreviation(name), "{name}");
        }
    }

    #[test]
    fn only_names_of_places_are_known() {
        assert_eq!(Zone::named("Etc/UTC"), Zone::Utc);
        for name in [
            "Asia/Kolkata",
            "America/Argentina/Buenos_Aires",
            "europe/berlin",
            "Japan",
        ] {
            assert_eq!(Zone::named(name), Zone::Named, "{name}");
        }
        for name in ["Asia/Foo+3:07", "<+0107>-01:07", "PST8PDT", "", "-03"] {
            assert_eq!(Zone::named(name), Zone::Other, "{name}");
        }
    }
}
