//! Rows of customer, supplier and part (specification, section 2).
//!
//! Must not know how many rows there are or who asks; a row depends on its key and the seed alone.

use super::{
    copy_text::CopyText,
    random::{Random, Stream},
    words::{
        ADDRESS_CHARACTERS, COLORS, CONTAINER_KINDS, CONTAINER_SIZES, MARKET_SEGMENTS, NATIONS,
        TYPE_FINISHES, TYPE_METALS, TYPE_SIZES,
    },
};

/// A city is its nation's name, cut or padded to this width, and a digit.
const CITY_PREFIX_WIDTH: usize = 9;
const CITIES_PER_NATION: u64 = 10;
const ADDRESS_LENGTH: (u64, u64) = (6, 24);
const BRANDS_PER_CATEGORY: u64 = 40;

/// Writes the customer with this key.
pub(crate) fn write_customer(seed: u64, key: u64, out: &mut CopyText) {
    let mut random = Random::for_row(seed, Stream::Customer, key);
    write_name("Customer#", key, out);
    write_address(&mut random, out);
    write_place(&mut random, out);
    out.text(random.pick(&MARKET_SEGMENTS));
    out.end_row();
}

/// Writes the supplier with this key.
pub(crate) fn write_supplier(seed: u64, key: u64, out: &mut CopyText) {
    let mut random = Random::for_row(seed, Stream::Supplier, key);
    write_name("Supplier#", key, out);
    write_address(&mut random, out);
    write_place(&mut random, out);
    out.end_row();
}

/// Writes the part with this key.
pub(crate) fn write_part(seed: u64, key: u64, out: &mut CopyText) {
    let mut random = Random::for_row(seed, Stream::Part, key);
    let [color, first, second] = three_colors(&mut random);
    out.number(key);
    out.part(first);
    out.part(" ");
    out.text(second);
    write_brand(&mut random, out);
    out.text(color);
    write_words(
        &mut random,
        &[&TYPE_SIZES, &TYPE_FINISHES, &TYPE_METALS],
        out,
    );
    out.number(random.between(1, 50));
    write_words(&mut random, &[&CONTAINER_SIZES, &CONTAINER_KINDS], out);
    out.end_row();
}

fn write_name(tag: &str, key: u64, out: &mut CopyText) {
    out.number(key);
    out.part(tag);
    out.digits(key, 9);
    out.end_value();
}

/// Ten characters are drawn at once: each takes six of 64 random bits.
fn write_address(random: &mut Random, out: &mut CopyText) {
    let mut address = String::with_capacity(ADDRESS_LENGTH.1 as usize);
    let mut bits = 0;
    for position in 0..random.between(ADDRESS_LENGTH.0, ADDRESS_LENGTH.1) {
        if position % 10 == 0 {
            bits = random.bits();
        }
        let index = (bits & 63) as usize;
        address.push_str(&ADDRESS_CHARACTERS[index..=index]);
        bits >>= 6;
    }
    out.text(&address);
}

/// Writes city, nation, region and phone; the phone's country code is the nation's.
fn write_place(random: &mut Random, out: &mut CopyText) {
    let index = random.below(NATIONS.len() as u64);
    let nation = NATIONS[index as usize];
    let width = CITY_PREFIX_WIDTH;
    out.part(&format!("{:width$.width$}", nation.name));
    out.number(random.below(CITIES_PER_NATION));
    out.text(nation.name);
    out.text(nation.region);
    out.digits(10 + index, 2);
    out.part("-");
    out.digits(random.between(100, 999), 3);
    out.part("-");
    out.digits(random.between(100, 999), 3);
    out.part("-");
    out.number(random.between(1000, 9999));
}

/// Writes manufacturer, category and brand: MFGR#2, MFGR#22, MFGR#2221.
///
/// A brand's number has two digits always, so that a brand is nine characters wide as the
/// specification's column is, and brands sort by number.
fn write_brand(random: &mut Random, out: &mut CopyText) {
    let manufacturer = random.between(1, 5);
    let category = manufacturer * 10 + random.between(1, 5);
    let brand = category * 100 + random.between(1, BRANDS_PER_CATEGORY);
    for number in [manufacturer, category, brand] {
        out.part("MFGR#");
        out.number(number);
    }
}

/// Three different colours: the part's own, and the two of its name.
fn three_colors(random: &mut Random) -> [&'static str; 3] {
    let count = COLORS.len() as u64;
    let first = random.below(count);
    let second = (first + random.between(1, count - 1)) % count;
    loop {
        let third = random.below(count);
        if third != first && third != second {
            return [first, second, third].map(|index| COLORS[index as usize]);
        }
    }
}

/// Writes one word of each list, joined by blanks.
fn write_words(random: &mut Random, lists: &[&[&str]], out: &mut CopyText) {
    for (position, list) in lists.iter().enumerate() {
        if position > 0 {
            out.part(" ");
        }
        out.part(random.pick(list));
    }
    out.end_value();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Writer = fn(u64, u64, &mut CopyText);

    fn rows(write: Writer, keys: u64) -> Vec<Vec<String>> {
        let mut out = CopyText::default();
        (1..=keys).for_each(|key| write(42, key, &mut out));
        let text = String::from_utf8(out.into_bytes()).unwrap();
        let split = |line: &str| line.split('\t').map(str::to_owned).collect();
        text.lines().map(split).collect()
    }

    /// Asserts that each value of `child` comes with one value of `parent`, and that every parent
    /// has `children` of them.
    fn assert_hierarchy(rows: &[Vec<String>], child: usize, parent: usize, children: usize) {
        let mut parent_of = BTreeMap::new();
        for row in rows {
            let known = parent_of.insert(&row[child], &row[parent]);
            assert!(known.is_none_or(|known| known == &row[parent]), "{row:?}");
        }
        let mut count_of: BTreeMap<_, usize> = BTreeMap::new();
        parent_of
            .values()
            .for_each(|parent| *count_of.entry(*parent).or_default() += 1);
        assert!(
            count_of.values().all(|count| *count == children),
            "{count_of:?}"
        );
    }

    #[test]
    fn cities_belong_to_nations_and_nations_to_regions() {
        for (write, keys) in [(write_customer as Writer, 3_000), (write_supplier, 2_000)] {
            let rows = rows(write, keys);
            assert_hierarchy(&rows, 3, 4, 10);
            assert_hierarchy(&rows, 4, 5, 5);
            for row in &rows {
                let nation = format!("{:9.9}", row[4]);
                assert!(row[3].len() == 10 && row[3].starts_with(&nation), "{row:?}");
            }
        }
    }

    #[test]
    fn brands_belong_to_categories_and_categories_to_manufacturers() {
        let rows = rows(write_part, 10_000);
        assert_hierarchy(&rows, 4, 3, 40);
        assert_hierarchy(&rows, 3, 2, 5);
        assert!(rows.iter().all(|row| row[4].starts_with(&row[3])));
        let manufacturers: BTreeSet<&str> = rows.iter().map(|row| row[2].as_str()).collect();
        let expected = ["MFGR#1", "MFGR#2", "MFGR#3", "MFGR#4", "MFGR#5"];
        assert_eq!(manufacturers, BTreeSet::from(expected));
    }

    #[test]
    fn values_fit_the_columns_and_cover_their_domains() {
        let parts = rows(write_part, 10_000);
        let widths = [8, 22, 6, 7, 9, 11, 25, 2, 10];
        for row in &parts {
            assert_eq!(row.len(), widths.len());
            assert!(
                row.iter().zip(widths).all(|(v, width)| v.len() <= width),
                "{row:?}"
            );
        }
        let distinct = |column: usize| {
            let values: BTreeSet<_> = parts.iter().map(|row| &row[column]).collect();
            values.len()
        };
        assert_eq!([5, 6, 7, 8].map(distinct), [92, 150, 50, 40]);
        let widths = [6, 25, 25, 10, 15, 12, 15, 10];
        for row in rows(write_customer, 3_000) {
            assert_eq!(row.len(), widths.len());
            assert!(
                row.iter().zip(widths).all(|(v, width)| v.len() <= width),
                "{row:?}"
            );
        }
    }

    #[test]
    fn names_and_phones_have_the_specified_form() {
        let supplier = &rows(write_supplier, 1)[0];
        assert_eq!(supplier[1], "Supplier#000000001");
        let nation = NATIONS
            .iter()
            .position(|nation| nation.name == supplier[4])
            .unwrap();
        let phone: Vec<&str> = supplier[6].split('-').collect();
        assert_eq!(phone[0], (10 + nation).to_string());
        assert_eq!([phone[1].len(), phone[2].len(), phone[3].len()], [3, 3, 4]);
    }
}
