//! Orders: the 1 to 7 rows of lineorder that share an order key (specification, section 2; TPC-H, clause 4.2.3).
//!
//! Must not know chunks or threads: an order depends on its number, the seed and the sizes of the
//! dimensions. Prices are in cents.

use super::{
    calendar::{Day, LAST_ORDER_DAY},
    copy_text::CopyText,
    random::{Random, Stream},
    scale::Cardinalities,
    words::{ORDER_PRIORITIES, SHIP_MODES},
};

const LINES_MAX: usize = 7;

/// What all orders of a data set have in common.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) seed: u64,
    pub(crate) sizes: Cardinalities,
    pub(crate) days: Vec<Day>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Line {
    part: u64,
    supplier: u64,
    quantity: u64,
    discount: u64,
    tax: u64,
    commit_day: usize,
    ship_mode: &'static str,
}

impl Orders {
    /// Writes the rows of the order with this number, from 0.
    pub(crate) fn write(&self, number: u64, out: &mut CopyText) {
        let mut random = Random::for_row(self.seed, Stream::Order, number);
        let order_day = random.below(LAST_ORDER_DAY as u64 + 1) as usize;
        let customer = self.customer(&mut random);
        let priority = random.pick(&ORDER_PRIORITIES);
        let mut lines = [Line::default(); LINES_MAX];
        let lines = &mut lines[..random.between(1, LINES_MAX as u64) as usize];
        lines.fill_with(|| self.line(&mut random, order_day));
        let total = lines.iter().map(Line::charge).sum();
        for (line, line_number) in lines.iter().zip(1..) {
            out.number(order_key(number));
            out.number(line_number);
            out.number(customer);
            out.number(line.part);
            out.number(line.supplier);
            out.number(self.days[order_day].key());
            out.text(priority);
            line.write(total, &self.days, out);
        }
    }

    /// Customers whose key is a multiple of three never order (TPC-H, clause 4.2.3).
    fn customer(&self, random: &mut Random) -> u64 {
        let ordering = self.sizes.customer - self.sizes.customer / 3;
        let index = random.below(ordering);
        index / 2 * 3 + index % 2 + 1
    }

    fn line(&self, random: &mut Random, order_day: usize) -> Line {
        Line {
            part: random.between(1, self.sizes.part),
            supplier: random.between(1, self.sizes.supplier),
            quantity: random.between(1, 50),
            discount: random.between(0, 10),
            tax: random.between(0, 8),
            // The last order is 151 days before the last day, so this stays within the date table.
            commit_day: order_day + random.between(30, 90) as usize,
            ship_mode: random.pick(&SHIP_MODES),
        }
    }
}

impl Line {
    fn extended_price(&self) -> u64 {
        self.quantity * part_price(self.part)
    }

    fn revenue(&self) -> u64 {
        self.extended_price() * (100 - self.discount) / 100
    }

    /// What this line adds to its order's total price.
    fn charge(&self) -> u64 {
        self.revenue() * (100 + self.tax) / 100
    }

    /// Writes the columns from lo_shippriority on.
    fn write(&self, order_total: u64, days: &[Day], out: &mut CopyText) {
        out.text("0");
        out.number(self.quantity);
        out.number(self.extended_price());
        out.number(order_total);
        out.number(self.discount);
        out.number(self.revenue());
        out.number(6 * part_price(self.part) / 10);
        out.number(self.tax);
        out.number(days[self.commit_day].key());
        out.text(self.ship_mode);
        out.end_row();
    }
}

/// Only the first 8 of every 32 keys are used (specification, lineorder layout).
fn order_key(number: u64) -> u64 {
    let ordinal = number + 1;
    (ordinal >> 3 << 5) | (ordinal & 7)
}

/// TPC-H's P_RETAILPRICE (clause 4.2.3), in cents.
fn part_price(part: u64) -> u64 {
    90_000 + (part / 10) % 20_001 + 100 * (part % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssb::{calendar, cardinalities};

    fn orders() -> Orders {
        Orders {
            seed: 42,
            sizes: cardinalities("0.01".parse().unwrap()),
            days: calendar::days(),
        }
    }

    fn rows(count: u64) -> Vec<Vec<String>> {
        let mut out = CopyText::default();
        (0..count).for_each(|number| orders().write(number, &mut out));
        let text = String::from_utf8(out.into_bytes()).unwrap();
        let split = |line: &str| line.split('\t').map(str::to_owned).collect();
        text.lines().map(split).collect()
    }

    fn number(row: &[String], column: usize) -> u64 {
        row[column].parse().unwrap()
    }

    #[test]
    fn prices_follow_from_part_quantity_and_discount() {
        for row in rows(500) {
            let price = part_price(number(&row, 3));
            let extended = number(&row, 8) * price;
            assert_eq!(number(&row, 9), extended);
            assert_eq!(number(&row, 12), extended * (100 - number(&row, 11)) / 100);
            assert_eq!(number(&row, 13), 6 * price / 10);
        }
    }

    #[test]
    fn the_lines_of_an_order_share_what_belongs_to_the_order() {
        let rows = rows(500);
        for order in rows.chunk_by(|a, b| a[0] == b[0]) {
            let charge = |row: &Vec<String>| number(row, 12) * (100 + number(row, 14)) / 100;
            let total: u64 = order.iter().map(charge).sum();
            assert!((1..=LINES_MAX).contains(&order.len()));
            for (row, line_number) in order.iter().zip(1..) {
                assert_eq!(number(row, 1), line_number);
                assert_eq!(number(row, 10), total);
                assert_eq!(
                    [&row[2], &row[5], &row[6]],
                    [&order[0][2], &order[0][5], &order[0][6]]
                );
            }
        }
    }

    #[test]
    fn values_stay_in_their_domains_and_reach_their_ends() {
        let rows = rows(15_000);
        let range = |column: usize| {
            let values = rows.iter().map(|row| number(row, column));
            (values.clone().min().unwrap(), values.max().unwrap())
        };
        assert_eq!([range(8), range(11), range(14)], [(1, 50), (0, 10), (0, 8)]);
        assert_eq!([range(1), range(4)], [(1, 7), (1, 2_000)]);
        assert_eq!(range(5), (19_920_101, 19_980_802));
        assert!(
            rows.iter()
                .all(|row| !number(row, 2).is_multiple_of(3) && number(row, 2) <= 3_000)
        );
        let per_order = rows.len() as f64 / 15_000.0;
        assert!((3.95..4.05).contains(&per_order), "{per_order}");
    }

    #[test]
    fn commit_dates_are_30_to_90_days_after_the_order() {
        let days = calendar::days();
        let position = |key: u64| days.iter().position(|day| day.key() == key).unwrap();
        for row in rows(500) {
            let wait = position(number(&row, 15)) - position(number(&row, 5));
            assert!((30..=90).contains(&wait), "{row:?}");
        }
    }

    #[test]
    fn order_keys_use_8_of_each_32() {
        let keys: Vec<u64> = (0..10).map(order_key).collect();
        assert_eq!(keys, [1, 2, 3, 4, 5, 6, 7, 32, 33, 34]);
    }
}
