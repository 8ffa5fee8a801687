//! How large each table is at a scale factor.
//!
//! At scale 1 and above the sizes are the specification's. Below 1, where the specification is
//! silent, dimensions shrink with the scale only down to a size at which every city and every brand
//! still has rows: with n rows over 250 cities, a given city is missing with probability e^(-n/250).

use std::{fmt, str::FromStr};

/// The largest scale: the specification's own tool ends there, and keys are known to fit.
pub const SCALE_MAX: f64 = 1000.0;

const ORDERS_PER_SCALE: f64 = 1_500_000.0;
const CUSTOMERS_PER_SCALE: f64 = 30_000.0;
const SUPPLIERS_PER_SCALE: f64 = 2_000.0;
const PARTS_PER_DOUBLING: f64 = 200_000.0;
/// Two thirds of customers order (see `lineorder`): a city has no orders with probability e^-8.
const CUSTOMERS_MIN: u64 = 3_000;
/// A city has no supplier with probability e^-8, so suppliers do not shrink below scale 1.
const SUPPLIERS_MIN: u64 = 2_000;
/// One of 1,000 brands has no part with probability e^-10.
const PARTS_MIN: u64 = 10_000;
/// Orders have 1 to 7 lines, evenly.
const LINES_PER_ORDER_MEAN: u64 = 4;

/// A scale factor: 1 is 6,000,000 rows of lineorder.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Scale(f64);

/// A number that is no scale factor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scale must be a number above 0 and at most {SCALE_MAX}, not \"{0}\"")]
pub struct InvalidScale(String);

impl TryFrom<f64> for Scale {
    type Error = InvalidScale;

    fn try_from(factor: f64) -> Result<Self, InvalidScale> {
        let is_a_scale = factor > 0.0 && factor <= SCALE_MAX;
        if is_a_scale {
            Ok(Scale(factor))
        } else {
            Err(InvalidScale(factor.to_string()))
        }
    }
}

impl FromStr for Scale {
    type Err = InvalidScale;

    fn from_str(text: &str) -> Result<Self, InvalidScale> {
        let refused = || InvalidScale(text.to_owned());
        let factor: f64 = text.parse().map_err(|_| refused())?;
        Scale::try_from(factor).map_err(|_| refused())
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How many rows each table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cardinalities {
    /// Days from 1992-01-01 to 1998-12-31; the same at every scale.
    pub date: u64,
    /// Customers.
    pub customer: u64,
    /// Suppliers.
    pub supplier: u64,
    /// Parts; they grow with the logarithm of the scale.
    pub part: u64,
    /// Orders, each of which is 1 to 7 rows of lineorder.
    pub orders: u64,
    /// Rows of lineorder to expect; the seed decides the exact number.
    pub lineorder_expected: u64,
}

/// The sizes of all tables at a scale.
pub fn cardinalities(scale: Scale) -> Cardinalities {
    let orders = linear(ORDERS_PER_SCALE, scale).max(1);
    Cardinalities {
        date: super::calendar::DAYS as u64,
        customer: linear(CUSTOMERS_PER_SCALE, scale).max(CUSTOMERS_MIN),
        supplier: linear(SUPPLIERS_PER_SCALE, scale).max(SUPPLIERS_MIN),
        part: parts(scale).max(PARTS_MIN),
        orders,
        lineorder_expected: orders * LINES_PER_ORDER_MEAN,
    }
}

fn parts(scale: Scale) -> u64 {
    let doublings = if scale.0 >= 1.0 {
        1.0 + scale.0.log2().floor()
    } else {
        scale.0
    };
    (PARTS_PER_DOUBLING * doublings).round() as u64
}

fn linear(per_scale: f64, scale: Scale) -> u64 {
    (per_scale * scale.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(scale: &str) -> Cardinalities {
        cardinalities(scale.parse().unwrap())
    }

    #[test]
    fn sizes_are_the_specifications_from_scale_1_on() {
        let one = at("1");
        assert_eq!((one.customer, one.supplier), (30_000, 2_000));
        assert_eq!((one.part, one.date), (200_000, 2_557));
        assert_eq!((one.orders, one.lineorder_expected), (1_500_000, 6_000_000));
        let ten = at("10");
        assert_eq!((ten.customer, ten.supplier), (300_000, 20_000));
        assert_eq!((ten.part, ten.orders), (800_000, 15_000_000));
        assert_eq!([at("1.9").part, at("2").part], [200_000, 400_000]);
        assert_eq!([at("1000").part, at("4").part], [2_000_000, 600_000]);
    }

    #[test]
    fn dimensions_shrink_only_while_every_city_and_brand_keeps_rows() {
        let tenth = at("0.1");
        assert_eq!((tenth.customer, tenth.supplier), (3_000, 2_000));
        assert_eq!((tenth.part, tenth.orders), (20_000, 150_000));
        let hundredth = at("0.01");
        assert_eq!((hundredth.customer, hundredth.supplier), (3_000, 2_000));
        assert_eq!((hundredth.part, hundredth.orders), (10_000, 15_000));
        assert_eq!(at("0.5").customer, 15_000);
        assert_eq!(at("1e-9").orders, 1);
    }

    #[test]
    fn what_is_no_scale_is_refused() {
        for text in ["0", "-1", "NaN", "inf", "1001", "ten", ""] {
            let refusal = text.parse::<Scale>().unwrap_err().to_string();
            assert!(refusal.contains(&format!("\"{text}\"")), "{refusal}");
        }
    }

    #[test]
    fn display_reads_back() {
        for text in ["0.1", "10", "0.025"] {
            assert_eq!(text.parse::<Scale>().unwrap().to_string(), text);
        }
    }
}
