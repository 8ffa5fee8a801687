//! All rows of the five tables, addressable by position.
//!
//! Must not know threads or connections: whoever asks for the same range gets the same bytes.

use std::{ops::Range, str::FromStr};

use super::{
    calendar,
    copy_text::CopyText,
    dimensions::{write_customer, write_part, write_supplier},
    lineorder::Orders,
    scale::{Cardinalities, Scale, cardinalities},
};

/// A table of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The calendar.
    Date,
    /// Who orders.
    Customer,
    /// Who delivers.
    Supplier,
    /// What is ordered.
    Part,
    /// The fact table.
    Lineorder,
}

impl Table {
    /// All tables, referenced ones before the table that refers to them.
    pub const ALL: [Table; 5] = [
        Table::Date,
        Table::Customer,
        Table::Supplier,
        Table::Part,
        Table::Lineorder,
    ];

    /// The table's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Table::Date => "date",
            Table::Customer => "customer",
            Table::Supplier => "supplier",
            Table::Part => "part",
            Table::Lineorder => "lineorder",
        }
    }
}

/// A name that no table of the benchmark has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown table \"{0}\"; the tables are date, customer, supplier, part and lineorder")]
pub struct UnknownTable(String);

impl FromStr for Table {
    type Err = UnknownTable;

    fn from_str(name: &str) -> Result<Self, UnknownTable> {
        let found = Table::ALL.into_iter().find(|table| table.name() == name);
        found.ok_or_else(|| UnknownTable(name.to_owned()))
    }
}

/// The data set of one scale and seed.
#[derive(Debug)]
pub struct Generator {
    orders: Orders,
}

impl Generator {
    /// The data set that this scale and seed stand for.
    pub fn new(scale: Scale, seed: u64) -> Self {
        Generator {
            orders: Orders {
                seed,
                sizes: cardinalities(scale),
                days: calendar::days(),
            },
        }
    }

    /// The sizes of the tables.
    pub fn cardinalities(&self) -> Cardinalities {
        self.orders.sizes
    }

    /// How many units a table has: rows, or orders in the case of lineorder.
    pub fn units(&self, table: Table) -> u64 {
        let sizes = self.orders.sizes;
        match table {
            Table::Date => sizes.date,
            Table::Customer => sizes.customer,
            Table::Supplier => sizes.supplier,
            Table::Part => sizes.part,
            Table::Lineorder => sizes.orders,
        }
    }

    /// How many rows to expect of a table; exact for all but lineorder.
    pub fn rows_expected(&self, table: Table) -> u64 {
        match table {
            Table::Lineorder => self.orders.sizes.lineorder_expected,
            dimension => self.units(dimension),
        }
    }

    /// Writes the rows of these units, counted from 0 and below [`Generator::units`].
    pub fn write(&self, table: Table, units: Range<u64>, out: &mut CopyText) {
        let seed = self.orders.seed;
        let write_unit = |unit| match table {
            Table::Date => self.orders.days[unit as usize].write(out),
            Table::Customer => write_customer(seed, unit + 1, out),
            Table::Supplier => write_supplier(seed, unit + 1, out),
            Table::Part => write_part(seed, unit + 1, out),
            Table::Lineorder => self.orders.write(unit, out),
        };
        units.for_each(write_unit);
    }
}
