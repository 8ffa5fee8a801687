//! The thirteen queries, verbatim: comma joins, and `date` as a table's name.
//!
//! Must not know how they are measured or answered. Published copies differ in the quantities of
//! Q1.3 and the brand of Q2.3; these follow the SQL of revision 3 (see README.md).

/// One query of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its name in the specification, such as "Q1.1".
    pub name: &'static str,
    /// Its text, semicolon included.
    pub sql: &'static str,
}

macro_rules! query {
    ($name:literal, $file:literal) => {
        Query {
            name: $name,
            sql: include_str!(concat!("../../queries/", $file)),
        }
    };
}

/// The thirteen queries, in the specification's order.
pub const QUERIES: [Query; 13] = [
    query!("Q1.1", "q1.1.sql"),
    query!("Q1.2", "q1.2.sql"),
    query!("Q1.3", "q1.3.sql"),
    query!("Q2.1", "q2.1.sql"),
    query!("Q2.2", "q2.2.sql"),
    query!("Q2.3", "q2.3.sql"),
    query!("Q3.1", "q3.1.sql"),
    query!("Q3.2", "q3.2.sql"),
    query!("Q3.3", "q3.3.sql"),
    query!("Q3.4", "q3.4.sql"),
    query!("Q4.1", "q4.1.sql"),
    query!("Q4.2", "q4.2.sql"),
    query!("Q4.3", "q4.3.sql"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_belongs_to_its_own_text() {
        for (index, query) in QUERIES.iter().enumerate() {
            assert!(query.sql.starts_with("select "), "{}", query.name);
            assert!(query.sql.trim_end().ends_with(';'), "{}", query.name);
            let duplicate = QUERIES[..index].iter().find(|other| other.sql == query.sql);
            assert_eq!(duplicate, None);
        }
    }

    #[test]
    fn each_flight_joins_the_tables_that_the_specification_joins() {
        for query in QUERIES {
            let flight = &query.name[..2];
            let joins = |table: &str| query.sql.lines().nth(1).unwrap().contains(table);
            assert!(joins("lineorder") && joins("date"), "{}", query.name);
            assert_eq!(joins("supplier"), flight != "Q1", "{}", query.name);
            assert_eq!(joins("part"), flight == "Q2" || flight == "Q4");
            assert_eq!(joins("customer"), flight == "Q3" || flight == "Q4");
        }
    }
}
