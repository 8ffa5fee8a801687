//! Random changes of the star, the same for the same seed.

use pgstar_postgres::connect::Connection;

/// Small, and the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    fn or_null(&mut self, value: String) -> String {
        if self.below(5) == 0 {
            "NULL".to_owned()
        } else {
            value
        }
    }

    fn customer(&mut self) -> String {
        (1 + self.below(40)).to_string()
    }

    /// A value for a column of `sale`.
    fn value(&mut self, column: &str) -> String {
        let number = self.below(1000) as i64 - 300;
        match column {
            "customer_id" => self.customer(),
            "seller_id" => {
                let seller = self.customer();
                self.or_null(seller)
            }
            "day_id" => {
                let day = self.below(25).to_string();
                self.or_null(day)
            }
            "amount" => {
                let amount = self
                    .pick(&["0", "1.50", "-2.25", "999999.99", "'NaN'", "10", "0.01"])
                    .to_owned();
                self.or_null(amount)
            }
            "price" => {
                let price = self
                    .pick(&[
                        "1",
                        "1.5",
                        "2.000",
                        "'Infinity'",
                        "'NaN'",
                        "3.14159",
                        "1e-10",
                        "100",
                    ])
                    .to_owned();
                self.or_null(price)
            }
            "quantity" => (self.below(8) as i64 - 1).to_string(),
            "big" => {
                let big = self
                    .pick(&["9223372036854775807", "-9223372036854775808", "5", "0"])
                    .to_owned();
                self.or_null(big)
            }
            "small" => {
                let small = self.pick(&["32767", "-32768", "1"]).to_owned();
                self.or_null(small)
            }
            "flag" => {
                let flag = self.pick(&["true", "false"]).to_owned();
                self.or_null(flag)
            }
            "note" => {
                let note = self
                    .pick(&[
                        "'a'",
                        "'B'",
                        "''",
                        "E'tab\\tand\\nline\\\\'",
                        "'ä€'",
                        "'\\N'",
                    ])
                    .to_owned();
                self.or_null(note)
            }
            "at" => self.or_null(format!(
                "timestamptz '2024-03-01 12:00+01' + {number} * interval '7 hours'"
            )),
            _ => self.or_null(format!(
                "timestamp '2024-03-01 12:00' + {number} * interval '7 hours'"
            )),
        }
    }

    /// One statement.
    pub fn change(&mut self) -> String {
        const COLUMNS: &[&str] = &[
            "customer_id",
            "seller_id",
            "day_id",
            "amount",
            "price",
            "quantity",
            "big",
            "small",
            "flag",
            "note",
            "at",
            "made",
        ];
        let id = self.below(400);
        match self.below(20) {
            0..=6 => {
                let values: Vec<String> = COLUMNS.iter().map(|column| self.value(column)).collect();
                format!(
                    "INSERT INTO sale (id, {}) VALUES ({id}, {}) ON CONFLICT DO NOTHING",
                    COLUMNS.join(", "),
                    values.join(", ")
                )
            }
            7..=9 => format!(
                "DELETE FROM sale WHERE id BETWEEN {id} AND {}",
                id + self.below(4)
            ),
            10..=12 => {
                let column = self.pick(COLUMNS);
                let value = self.value(column);
                format!(
                    "UPDATE sale SET {column} = {value} WHERE id BETWEEN {id} AND {}",
                    id + self.below(6)
                )
            }
            13 => {
                let segment = self.pick(&["'s0'", "'s1'", "NULL", "'new'"]);
                format!(
                    "UPDATE customer SET segment = {segment} WHERE id = {}",
                    self.customer()
                )
            }
            14 => format!(
                "UPDATE customer SET score = {}, region_id = {} WHERE id = {}",
                self.below(5),
                1 + self.below(6),
                self.customer()
            ),
            15 => format!(
                "UPDATE customer SET remark = 'y{id}' WHERE id = {}",
                self.customer()
            ),
            16 => format!(
                "UPDATE region SET name = 'r{}' WHERE id = {}",
                self.below(5),
                1 + self.below(6)
            ),
            17 => match self.below(3) {
                0 => format!(
                    "INSERT INTO day VALUES ({}, {}, 'd1') ON CONFLICT DO NOTHING",
                    self.below(25),
                    self.below(6)
                ),
                1 => format!("DELETE FROM day WHERE id = {}", self.below(25)),
                _ => format!(
                    "UPDATE day SET month = {}, label = 'q' WHERE id = {}",
                    self.below(6),
                    self.below(25)
                ),
            },
            18 => {
                let new = 100 + self.below(30);
                match self.below(3) {
                    0 => format!(
                        "INSERT INTO customer (id, region_id, segment, score) VALUES ({new}, 2, 's1', 1) ON CONFLICT DO NOTHING; \
                                  INSERT INTO sale (id, customer_id, quantity, amount) VALUES ({}, {new}, 2, 5) ON CONFLICT DO NOTHING",
                        1000 + new
                    ),
                    1 => format!(
                        "DELETE FROM sale WHERE customer_id = {new} OR seller_id = {new}; DELETE FROM customer WHERE id = {new}"
                    ),
                    _ => format!(
                        "UPDATE customer SET id = {} WHERE id = {new} AND NOT EXISTS (SELECT FROM customer WHERE id = {})",
                        new + 40,
                        new + 40
                    ),
                }
            }
            _ => format!(
                "UPDATE sale SET note = note || 'x', flag = NOT flag WHERE customer_id = {}",
                self.customer()
            ),
        }
    }

    /// A transaction, with sub-transactions that are rolled back now and then.
    pub fn transaction(&mut self) -> String {
        let mut sql = String::from("BEGIN;");
        for _ in 0..1 + self.below(6) {
            match self.below(5) {
                0 => sql += &format!("SAVEPOINT a; {}; ROLLBACK TO a;", self.change()),
                1 => sql += &format!("SAVEPOINT b; {}; RELEASE b;", self.change()),
                _ => sql += &format!("{};", self.change()),
            }
        }
        sql + if self.below(8) == 0 {
            "ROLLBACK;"
        } else {
            "COMMIT;"
        }
    }
}

impl Random {
    /// Statements of one transaction of thousands of rows, with parts in parts that are rolled back at any
    /// depth. Several of these at once touch rows of their own.
    pub fn large_transaction(&mut self, number: u64) -> Vec<String> {
        let mut statements = vec!["BEGIN".to_owned()];
        let mut depth = 0;
        for step in 0..20 + self.below(20) {
            let first = 10_000 + number * 1_000_000 + self.below(20) * 500;
            statements.push(match self.below(9) {
                0 | 1 => {
                    depth += 1;
                    format!("SAVEPOINT s{depth}")
                }
                2 if depth > 0 => {
                    let to = 1 + self.below(depth);
                    depth = to;
                    format!("ROLLBACK TO s{to}")
                }
                3 if depth > 0 => {
                    let to = 1 + self.below(depth);
                    depth = to - 1;
                    format!("RELEASE s{to}")
                }
                4 | 5 => format!(
                    "DELETE FROM sale WHERE id BETWEEN {first} AND {}",
                    first + 400
                ),
                6 => format!(
                    "UPDATE sale SET quantity = quantity + {step}, note = 'n{step}' WHERE id BETWEEN {first} AND {}",
                    first + 400
                ),
                _ => format!(
                    "INSERT INTO sale (id, customer_id, day_id, quantity, amount, note, flag) \
                     SELECT i, 1 + i % 40, i % 20, i % 7, i % 100, 'm' || i % 5, i % 2 = 0 \
                     FROM generate_series({first}, {}) i ON CONFLICT DO NOTHING",
                    first + 400
                ),
            });
        }
        let end = if self.below(5) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        };
        statements.push(end.to_owned());
        statements
    }
}

/// Runs it; what collides with another transaction is rolled back.
pub async fn run(client: &Connection, sql: &str) {
    if let Err(error) = client.batch_execute(sql).await {
        let code = error.code().map(|code| code.code().to_owned());
        assert!(
            matches!(code.as_deref(), Some("40P01" | "40001" | "23503" | "23505")),
            "{sql}: {error:?}"
        );
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}
