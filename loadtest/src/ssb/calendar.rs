//! The seven years of the date table, and what the calendar says of each day.
//!
//! Must not know random numbers: this table is the same at every scale and seed. Flags and week
//! numbers follow the specification and the calendar; the published generator's slips
//! ("Augest", a weekday that is off by one, an inverted last-day-of-month flag) are not repeated.

use super::copy_text::CopyText;

const FIRST_YEAR: u64 = 1992;
const LAST_YEAR: u64 = 1998;
/// 1992-01-01 was a Wednesday; Sunday is 0.
const FIRST_DAY_OF_WEEK: u64 = 3;
const SATURDAY: u64 = 6;

/// Days from 1992-01-01 to 1998-12-31.
pub(crate) const DAYS: usize = 2557;
/// 1998-08-02, counted from 1992-01-01: the last day with orders (TPC-H, clause 4.2.3).
pub(crate) const LAST_ORDER_DAY: usize = 2405;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS_OF_WEEK: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
/// The published generator's ten holidays, as (month, day).
const HOLIDAYS: [(u64, u64); 10] = [
    (1, 1),
    (2, 20),
    (4, 20),
    (5, 20),
    (7, 20),
    (8, 20),
    (9, 20),
    (10, 20),
    (11, 20),
    (12, 24),
];

/// One day of the date table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    year: u64,
    month: u64,
    day_of_month: u64,
    day_of_year: u64,
    /// Sunday is 0.
    day_of_week: u64,
}

impl Day {
    /// The key of the date table: yyyymmdd.
    pub(crate) fn key(&self) -> u64 {
        self.year * 10_000 + self.month * 100 + self.day_of_month
    }

    /// Writes the day as a row of the date table.
    pub(crate) fn write(&self, out: &mut CopyText) {
        out.number(self.key());
        self.write_names(out);
        self.write_numbers(out);
        out.text(self.selling_season());
        out.flag(self.day_of_week == SATURDAY);
        out.flag(self.day_of_month == days_in_month(self.year, self.month));
        out.flag(HOLIDAYS.contains(&(self.month, self.day_of_month)));
        out.flag(self.is_weekday());
        out.end_row();
    }

    fn write_names(&self, out: &mut CopyText) {
        let month = MONTHS[self.month as usize - 1];
        out.part(month);
        out.part(" ");
        out.digits(self.day_of_month, 1);
        out.part(", ");
        out.number(self.year);
        out.text(DAYS_OF_WEEK[self.day_of_week as usize]);
        out.text(month);
        out.number(self.year);
        out.number(self.year * 100 + self.month);
        out.part(&month[..3]);
        out.number(self.year);
    }

    fn write_numbers(&self, out: &mut CopyText) {
        out.number(self.day_of_week + 1);
        out.number(self.day_of_month);
        out.number(self.day_of_year);
        out.number(self.month);
        out.number(self.week_of_year());
    }

    /// Weeks of seven days counted from January 1st, so week 53 has one day, or two in a leap year.
    fn week_of_year(&self) -> u64 {
        (self.day_of_year - 1) / 7 + 1
    }

    fn is_weekday(&self) -> bool {
        (1..SATURDAY).contains(&self.day_of_week)
    }

    fn selling_season(&self) -> &'static str {
        match self.month {
            1..=3 => "Winter",
            4 => "Spring",
            5..=8 => "Summer",
            9..=10 => "Fall",
            _ => "Christmas",
        }
    }
}

/// Every day of the date table, in order.
pub(crate) fn days() -> Vec<Day> {
    let mut days = Vec::with_capacity(DAYS);
    for year in FIRST_YEAR..=LAST_YEAR {
        push_year(&mut days, year);
    }
    days
}

fn push_year(days: &mut Vec<Day>, year: u64) {
    let mut day_of_year = 0;
    for month in 1..=12 {
        for day_of_month in 1..=days_in_month(year, month) {
            day_of_year += 1;
            days.push(Day {
                year,
                month,
                day_of_month,
                day_of_year,
                day_of_week: (FIRST_DAY_OF_WEEK + days.len() as u64) % 7,
            });
        }
    }
}

/// Within 1901 to 2099 every fourth year is a leap year.
fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(key: u64) -> Day {
        days().into_iter().find(|day| day.key() == key).unwrap()
    }

    fn row(key: u64) -> String {
        let mut out = CopyText::default();
        day(key).write(&mut out);
        String::from_utf8(out.into_bytes())
            .unwrap()
            .replace('\t', "|")
    }

    #[test]
    fn seven_years_with_two_leap_days() {
        let days = days();
        assert_eq!(days.len(), DAYS);
        assert_eq!(days[0].key(), 19_920_101);
        assert_eq!(days[DAYS - 1].key(), 19_981_231);
        assert_eq!(days[LAST_ORDER_DAY].key(), 19_980_802);
        let leap_days = days.iter().filter(|day| day.key() % 10_000 == 229);
        assert_eq!(
            leap_days.map(|day| day.year).collect::<Vec<_>>(),
            [1992, 1996]
        );
        assert!(days.is_sorted_by(|a, b| a.key() < b.key()));
    }

    #[test]
    fn days_of_the_week_are_those_of_the_calendar() {
        for (key, name) in [
            (19_920_101, "Wednesday"),
            (19_920_301, "Sunday"),
            (19_940_704, "Monday"),
            (19_960_229, "Thursday"),
            (19_981_231, "Thursday"),
        ] {
            assert_eq!(DAYS_OF_WEEK[day(key).day_of_week as usize], name, "{key}");
        }
    }

    #[test]
    fn week_numbers_count_sevens_from_new_year() {
        for (key, week) in [
            (19_940_101, 1),
            (19_940_107, 1),
            (19_940_108, 2),
            (19_940_205, 6),
            (19_941_231, 53),
            (19_921_230, 53),
            (19_921_229, 52),
        ] {
            assert_eq!(day(key).week_of_year(), week, "{key}");
        }
    }

    #[test]
    fn whole_rows() {
        assert_eq!(
            row(19_971_231),
            "19971231|December 31, 1997|Wednesday|December|1997|199712|Dec1997|4|31|365|12|53|Christmas|f|t|f|t\n"
        );
        assert_eq!(
            row(19_920_229),
            "19920229|February 29, 1992|Saturday|February|1992|199202|Feb1992|7|29|60|2|9|Winter|t|t|f|f\n"
        );
        assert_eq!(
            row(19_950_820),
            "19950820|August 20, 1995|Sunday|August|1995|199508|Aug1995|1|20|232|8|34|Summer|f|f|t|f\n"
        );
    }
}
