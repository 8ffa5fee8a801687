//! What is known of time zones without asking for their rules.

/// How a zone's clocks differ from UTC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Never.
    Utc,
    /// From [`QUARTER_HOURS_SINCE`] on by whole quarters of an hour, which change where a quarter begins.
    /// That is so of every zone that PostgreSQL has by a name of letters; it was tried for all 1,198.
    QuarterHours,
    /// Perhaps by any number of seconds: offsets that a session makes up itself.
    Other,
}

/// From this day on every zone of the tz database keeps to quarters of an hour: the last to do so were
/// Pacific/Kiritimati's islands on the first of the month.
pub(crate) const QUARTER_HOURS_SINCE: &str = "1979-10-02";

impl Zone {
    /// The zone that a setting or AT TIME ZONE names.
    pub(crate) fn named(name: &str) -> Zone {
        const AREAS: [&str; 10] = [
            "Africa",
            "America",
            "Antarctica",
            "Arctic",
            "Asia",
            "Atlantic",
            "Australia",
            "Europe",
            "Indian",
            "Pacific",
        ];
        let (area, place) = name.split_once('/').unwrap_or(("", name));
        // With digits or signs in it, the name might be a rule of the session's own.
        let is_name = place
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'_'));
        match name {
            "UTC" | "GMT" | "UCT" | "Zulu" | "Universal" => Zone::Utc,
            "Etc/UTC" | "Etc/GMT" | "Etc/UCT" | "Etc/Zulu" | "Etc/Universal" => Zone::Utc,
            _ if AREAS.contains(&area) && !place.is_empty() && is_name => Zone::QuarterHours,
            _ => Zone::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_places_are_known() {
        assert_eq!(Zone::named("Etc/UTC"), Zone::Utc);
        for name in [
            "Asia/Kolkata",
            "America/Argentina/Buenos_Aires",
            "Europe/Berlin",
        ] {
            assert_eq!(Zone::named(name), Zone::QuarterHours, "{name}");
        }
        for name in [
            "Asia/Foo+3:07",
            "<+0107>-01:07",
            "PST8PDT",
            "",
            "Asia/",
            "europe/berlin",
        ] {
            assert_eq!(Zone::named(name), Zone::Other, "{name}");
        }
    }
}
