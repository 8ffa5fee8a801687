//! The word lists of the benchmark, in the order of its generator's distributions (TPC-H, clause 4.2.2.13).
//!
//! Must not know rows or random numbers.

/// A nation and the region that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nation {
    pub(crate) name: &'static str,
    pub(crate) region: &'static str,
}

const fn nation(name: &'static str, region: &'static str) -> Nation {
    Nation { name, region }
}

const AFRICA: &str = "AFRICA";
const AMERICA: &str = "AMERICA";
const ASIA: &str = "ASIA";
const EUROPE: &str = "EUROPE";
const MIDDLE_EAST: &str = "MIDDLE EAST";

pub(crate) const NATIONS: [Nation; 25] = [
    nation("ALGERIA", AFRICA),
    nation("ARGENTINA", AMERICA),
    nation("BRAZIL", AMERICA),
    nation("CANADA", AMERICA),
    nation("EGYPT", MIDDLE_EAST),
    nation("ETHIOPIA", AFRICA),
    nation("FRANCE", EUROPE),
    nation("GERMANY", EUROPE),
    nation("INDIA", ASIA),
    nation("INDONESIA", ASIA),
    nation("IRAN", MIDDLE_EAST),
    nation("IRAQ", MIDDLE_EAST),
    nation("JAPAN", ASIA),
    nation("JORDAN", MIDDLE_EAST),
    nation("KENYA", AFRICA),
    nation("MOROCCO", AFRICA),
    nation("MOZAMBIQUE", AFRICA),
    nation("PERU", AMERICA),
    nation("CHINA", ASIA),
    nation("ROMANIA", EUROPE),
    nation("SAUDI ARABIA", MIDDLE_EAST),
    nation("VIETNAM", ASIA),
    nation("RUSSIA", EUROPE),
    nation("UNITED KINGDOM", EUROPE),
    nation("UNITED STATES", AMERICA),
];

pub(crate) const MARKET_SEGMENTS: [&str; 5] = [
    "AUTOMOBILE",
    "BUILDING",
    "FURNITURE",
    "HOUSEHOLD",
    "MACHINERY",
];

pub(crate) const ORDER_PRIORITIES: [&str; 5] =
    ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"];

pub(crate) const SHIP_MODES: [&str; 7] = ["REG AIR", "AIR", "RAIL", "TRUCK", "MAIL", "FOB", "SHIP"];

/// A part's type is one word of each.
pub(crate) const TYPE_SIZES: [&str; 6] =
    ["STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"];
pub(crate) const TYPE_FINISHES: [&str; 5] =
    ["ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"];
pub(crate) const TYPE_METALS: [&str; 5] = ["TIN", "NICKEL", "BRASS", "STEEL", "COPPER"];

/// A container is one word of each.
pub(crate) const CONTAINER_SIZES: [&str; 5] = ["SM", "LG", "MED", "JUMBO", "WRAP"];
pub(crate) const CONTAINER_KINDS: [&str; 8] =
    ["CASE", "BOX", "BAG", "JAR", "PACK", "PKG", "CAN", "DRUM"];

#[rustfmt::skip]
pub(crate) const COLORS: [&str; 92] = [
    "almond", "antique", "aquamarine", "azure", "beige", "bisque", "black", "blanched", "blue",
    "blush", "brown", "burlywood", "burnished", "chartreuse", "chiffon", "chocolate", "coral",
    "cornflower", "cornsilk", "cream", "cyan", "dark", "deep", "dim", "dodger", "drab", "firebrick",
    "floral", "forest", "frosted", "gainsboro", "ghost", "goldenrod", "green", "grey", "honeydew",
    "hot", "indian", "ivory", "khaki", "lace", "lavender", "lawn", "lemon", "light", "lime",
    "linen", "magenta", "maroon", "medium", "metallic", "midnight", "mint", "misty", "moccasin",
    "navajo", "navy", "olive", "orange", "orchid", "pale", "papaya", "peach", "peru", "pink",
    "plum", "powder", "puff", "purple", "red", "rose", "rosy", "royal", "saddle", "salmon",
    "sandy", "seashell", "sienna", "sky", "slate", "smoke", "snow", "spring", "steel", "tan",
    "thistle", "tomato", "turquoise", "violet", "wheat", "white", "yellow",
];

/// The 64 characters of random addresses (TPC-H, clause 4.2.2.7).
pub(crate) const ADDRESS_CHARACTERS: &str =
    "0123456789abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ,";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn five_regions_have_five_nations_each() {
        let mut nations_of: HashMap<&str, usize> = HashMap::new();
        for nation in NATIONS {
            *nations_of.entry(nation.region).or_default() += 1;
        }
        assert_eq!(nations_of.len(), 5);
        assert!(
            nations_of.values().all(|count| *count == 5),
            "{nations_of:?}"
        );
    }

    #[test]
    fn addresses_have_64_characters_to_draw_from() {
        assert_eq!(ADDRESS_CHARACTERS.len(), 64);
    }
}
