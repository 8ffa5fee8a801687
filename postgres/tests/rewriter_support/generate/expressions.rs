//! Expressions as text: aggregates, keys that follow from keys, conditions. `@` is the column.

use super::Type;
use crate::rewriter_support::data::Random;

pub(super) fn stored_aggregate(
    (column, ty): &(String, Type),
    visible: &[(String, Type)],
    random: &mut Random,
) -> String {
    let functions: &[&str] = match ty {
        Type::Integer => &[
            "sum(@)",
            "sum(@)",
            "avg(@)",
            "min(@)",
            "max(@)",
            "count(@)",
            "sum(@ * 2)",
            "sum(@) FILTER (WHERE ?)",
            "sum(@ * #)",
            "sum(# - @)",
            "var_samp(@)",
            "var_pop(@)",
            "stddev(@)",
            "sum(coalesce(@, 0))",
            "max(@ + 1)",
            "bit_or(@)",
        ],
        Type::Scaled => &[
            "sum(@)",
            "sum(@)",
            "avg(@)",
            "count(@)",
            "min(@)",
            "max(@)",
            "sum(@ * #)",
            "variance(@)",
            "sum(CASE WHEN ? THEN @ ELSE 0 END)",
            "sum(@ / 3)",
            "percentile_cont(0.5) WITHIN GROUP (ORDER BY @)",
        ],
        Type::Numeric => &["sum(@)", "avg(@)", "count(@)", "max(@)"],
        Type::Float => &[
            "count(@)",
            "count(CASE WHEN @ > 1 THEN 1 END)",
            "sum(CASE WHEN @ > 1 THEN # END)",
            "max(@)",
            "sum(@)",
            "avg(@)",
            "stddev(CASE WHEN @ < 100 THEN @ END)",
        ],
        Type::Text => &[
            "min(@)",
            "max(@)",
            "count(@)",
            "max(upper(@))",
            "min(length(@))",
            "count(*) FILTER (WHERE ?)",
            "string_agg(@, ',' ORDER BY @)",
        ],
        Type::Loose | Type::Padded => &["count(@)", "count(*) FILTER (WHERE ?)", "max(@)"],
        Type::Date | Type::Timestamp | Type::Instant => {
            &["min(@)", "max(@)", "count(@)", "count(*) FILTER (WHERE ?)"]
        }
        Type::Boolean => &[
            "bool_and(@)",
            "bool_or(@)",
            "count(@)",
            "every(@)",
            "count(*) FILTER (WHERE @)",
            "sum(CASE WHEN @ THEN 1 ELSE 0 END)",
            "avg(CASE WHEN @ THEN 1.0 ELSE 0 END)",
        ],
        Type::Enum => &["min(@)", "max(@)", "count(@)"],
        Type::Interval => &["count(@)", "sum(@)", "max(@)"],
        Type::Uuid => &["count(@)", "count(DISTINCT @)"],
    };
    let mut text = random.pick::<&str>(functions).replace('@', column);
    if text.contains('?') {
        let (other, ty) = random.pick(visible).clone();
        text = text.replace('?', &predicate(&other, ty, random));
    }
    if text.contains('#') {
        let numbers: Vec<&String> = visible
            .iter()
            .filter(|(_, ty)| *ty == Type::Integer)
            .map(|(name, _)| name)
            .collect();
        let number = numbers
            .get(random.below(numbers.len().max(1)))
            .map_or("2", |name| name.as_str());
        text = text.replace('#', number);
    }
    text
}

/// Expressions whose sums may follow from the sum of `@`.
const LINEAR: [&str; 9] = [
    "@ * 2",
    "2.50 * @",
    "-@",
    "@ + 1.5",
    "3 - @",
    "@::numeric + @",
    "coalesce(@, 0)",
    "coalesce(@, 1)",
    "@::numeric * 2 - 0.125",
];

pub(super) fn derived_aggregate(stored: &str, random: &mut Random) -> String {
    let swapped = match stored.split_once('(') {
        Some(("avg", rest)) if random.chance(40) => format!("sum({rest}"),
        Some(("sum", rest)) if random.chance(30) && !rest.contains("FILTER") => {
            format!("avg({rest}")
        }
        Some(("sum", rest)) if random.chance(20) && !rest.contains("FILTER") => {
            format!("count({rest}")
        }
        // From the sums and counts of what it is made of.
        Some((function @ ("sum" | "avg"), rest)) if random.chance(40) && rest.ends_with(')') => {
            let argument = &rest[..rest.len() - 1];
            let is_simple = !argument.contains("WHERE") && !argument.contains("CASE");
            let form = random.pick(&LINEAR);
            match is_simple {
                true => format!(
                    "{function}({})",
                    form.replace('@', &format!("({argument})"))
                ),
                false => stored.to_owned(),
            }
        }
        Some(("var_samp" | "var_pop" | "variance" | "stddev", rest)) if random.chance(60) => {
            format!(
                "{}({rest}",
                random.pick(&["stddev", "stddev_pop", "variance"])
            )
        }
        _ => stored.to_owned(),
    };
    match random.below(8) {
        0 => format!("{swapped}::text"),
        1 if swapped.starts_with("sum") => format!("{swapped} / NULLIF(count(*), 0)"),
        2 if swapped.starts_with("sum") || swapped.starts_with("count") => {
            format!("coalesce({swapped}, 0) + 1")
        }
        _ => swapped,
    }
}

/// An aggregate over a key, or under a condition over one.
pub(super) fn over_key(key: &str, ty: Type, aggregate: &str, random: &mut Random) -> String {
    let condition = filter_on_key(key, ty, random);
    match random.below(5) {
        0 if random.chance(30) => format!("array_agg(DISTINCT {key})"),
        0 if random.chance(30) => format!("count(DISTINCT ({key}, {key} IS NULL))"),
        0 => format!("count(DISTINCT {key})"),
        1 => format!("count(CASE WHEN {condition} THEN 1 END)"),
        2 if aggregate.starts_with("sum(")
            && aggregate.ends_with(')')
            && !aggregate.contains("FILTER")
            && !aggregate.contains("NULLIF")
            && !aggregate.contains("coalesce") =>
        {
            let argument = &aggregate[4..aggregate.len() - 1];
            let otherwise = random.pick(&["", " ELSE 0", " ELSE NULL"]);
            format!("sum(CASE WHEN {condition} THEN {argument}{otherwise} END)")
        }
        3 if aggregate.ends_with(')')
            && !aggregate.contains("FILTER")
            && !aggregate.contains("NULLIF")
            && !aggregate.contains("coalesce") =>
        {
            format!("{aggregate} FILTER (WHERE {condition})")
        }
        _ => {
            let key = (key.to_owned(), ty);
            stored_aggregate(&key, std::slice::from_ref(&key), random)
        }
    }
}

/// Operators in a row without parentheses: whoever reads them must agree with PostgreSQL on what binds tighter.
pub(super) fn chain(columns: [&str; 2], random: &mut Random) -> String {
    let mut text = comparison(columns, random);
    for _ in 0..random.below(3) {
        let not = random.pick(&["", "", "NOT "]);
        let junction = random.pick(&["AND", "OR"]);
        text = format!("{text} {junction} {not}{}", comparison(columns, random));
    }
    text
}

fn comparison(columns: [&str; 2], random: &mut Random) -> String {
    let (left, right) = (arithmetic(columns, random), arithmetic(columns, random));
    let not = *random.pick(&["", "NOT "]);
    match random.below(9) {
        0 => format!("{left} IS {not}NULL"),
        1 => format!("{left} {not}IN ({right}, 2)"),
        2 => format!("{left} {not}BETWEEN {right} AND 3 + {right}"),
        3 => format!("{left} IS {not}DISTINCT FROM {right}"),
        4 => format!("{left}::text {not}LIKE '1' || '%'"),
        5 => format!(
            "{left} || 'x' {} 'y' || {right}",
            random.pick(&["=", "<", "<>"])
        ),
        6 => format!("({left} > 1) IS {not}TRUE"),
        7 => format!("CASE WHEN {left} > 1 THEN {right} ELSE 0 END = {right}"),
        _ => format!(
            "{left} {} {right}",
            random.pick(&["=", "<>", "!=", "<", "<=", ">", ">="])
        ),
    }
}

fn arithmetic(columns: [&str; 2], random: &mut Random) -> String {
    let mut text = term(columns, random);
    for _ in 0..random.below(3) {
        text = match random.below(6) {
            0 => format!("{text} + {}", term(columns, random)),
            1 => format!("{text} - {}", term(columns, random)),
            2 => format!("{text} * {}", term(columns, random)),
            3 => format!("{text} % 3"),
            4 => format!("{text} / 2"),
            _ => format!("{text} - -{}", random.below(4)),
        };
    }
    text
}

fn term(columns: [&str; 2], random: &mut Random) -> String {
    let column = *random.pick(&columns);
    match random.below(7) {
        0 => format!("- {column}"),
        1 => format!("{column}::int::numeric"),
        2 => format!("-{}", random.below(5)),
        3 => format!("+{column}"),
        4 => random.below(5).to_string(),
        _ => column.to_owned(),
    }
}

pub(super) fn derived_key(key: &str, ty: Type, random: &mut Random) -> String {
    let forms: &[&str] = match ty {
        Type::Integer => &[
            "@",
            "@ % 3",
            "@ / 2",
            "CASE WHEN @ > 2 THEN 'a' ELSE 'b' END",
            "coalesce(@, 0)",
            "floor(@ / 2) * 2",
            "@::text",
            "@ * 1.5",
            "abs(@)",
            "-@",
            "CASE @ WHEN 1 THEN 'one' WHEN 2 THEN NULL ELSE 'more' END",
            "CASE WHEN @ IS NULL THEN 'none' WHEN @ IN (1, 2) THEN 'few' END",
            "@::numeric(9,2)",
            "greatest(@, 2)",
            // The same in every row.
            "'k'::text",
        ],
        Type::Text => &[
            "@",
            "upper(@)",
            "left(@, 1)",
            "coalesce(@, '-')",
            "@ || 'x'",
            "length(@)",
            "nullif(@, 'a')",
        ],
        Type::Padded => &[
            "@",
            "@::text",
            "length(@)",
            "upper(@)",
            "coalesce(@, 'a')",
            "nullif(@, 'b')",
            "@ || '|'",
        ],
        Type::Date => &[
            "@",
            "EXTRACT(year FROM @)",
            "EXTRACT(dow FROM @)",
            "date_trunc('month', @)",
            "@ + 1",
            "to_char(@, 'YYYY-MM')",
            "date_trunc('week', @)",
            "@::timestamp",
            "date_trunc('quarter', @::timestamp)",
            "EXTRACT(isoyear FROM @)",
            "to_char(@, 'IYYY-IW')",
        ],
        Type::Timestamp => return derived_bucket(key, random),
        Type::Instant => &[
            "@",
            "date_trunc('day', @)",
            "@::date",
            "date_trunc('month', @)",
            "date_trunc('hour', @)",
            "date_trunc('week', @)",
            "@ AT TIME ZONE 'UTC'",
            "date_trunc('day', @ AT TIME ZONE 'Asia/Kolkata')",
            "date_trunc('day', @, 'America/New_York')",
            "EXTRACT(hour FROM @)",
            "EXTRACT(epoch FROM @)",
            "@::text",
            "date_trunc('hour', @) + interval '30 minutes' * floor(extract(minute FROM @) / 30)",
            "to_char(@, 'YYYY-MM-DD HH24:MI')",
            "date_bin('15 minutes', @, '2000-01-01 00:00+00')",
            "EXTRACT(isodow FROM @)",
        ],
        Type::Boolean => &["@", "@ IS NULL", "coalesce(@::text, '?')"],
        Type::Scaled => &["@", "@ * 2", "round(@)", "@ + 1.5", "@ / 3", "@::text"],
        Type::Numeric | Type::Float | Type::Loose | Type::Interval => &["@"],
        Type::Enum => &["@", "@::text", "@ = 'ok'", "coalesce(@, 'sad')"],
        Type::Uuid => &["@", "@::text"],
    };
    let key = if ty == Type::Instant {
        column_of(key)
    } else {
        key
    };
    random.pick::<&str>(forms).replace('@', key)
}

/// The column that a bucket is made of.
pub(super) fn column_of(key: &str) -> &str {
    let column = key
        .find('{')
        .and_then(|start| Some((start, start + key[start..].find('}')?)));
    column.map_or(key, |(start, end)| &key[start..=end])
}

/// Buckets that a rollup may keep.
pub(super) fn stored_bucket(column: &str, ty: Type, random: &mut Random) -> String {
    let forms: &[&str] = match ty {
        Type::Instant => &[
            "date_bin('15 minutes', @, '2000-01-01 00:00+00')",
            "date_bin('15 minutes', @, '2000-01-01 00:00+00')",
            "date_trunc('minute', @ AT TIME ZONE 'UTC')",
            "date_trunc('hour', @ AT TIME ZONE 'UTC')",
            "(@ AT TIME ZONE 'UTC')::date",
        ],
        _ => &[
            "date_bin('15 minutes', @, '2000-01-01')",
            "date_trunc('hour', @) + interval '15 minutes' * floor(extract(minute FROM @) / 15)",
            "@::date",
            "date_trunc('week', @ + interval '1 day') - interval '1 day'",
            "date_bin('10 days', @, timestamp '2024-01-01')",
            "date_trunc('second', @)",
        ],
    };
    random.pick::<&str>(forms).replace('@', column)
}

fn derived_bucket(key: &str, random: &mut Random) -> String {
    let column = column_of(key);
    let forms: &[&str] = &[
        "date_trunc('hour', @)",
        "date_trunc('day', @)",
        "DATE_TRUNC('WEEK', @)",
        "DATE_TRUNC('MONTH', @)",
        "date_trunc('quarter', @)",
        "date_trunc('year', @)",
        "EXTRACT(month FROM @)",
        "EXTRACT(dow FROM @)",
        "EXTRACT(isoyear FROM @)",
        "date_part('year', @)",
        "@::date",
        "EXTRACT(hour FROM @)",
        "EXTRACT(week FROM @)",
        "date_trunc('minute', @)",
        "DATE_TRUNC('HOUR', @) + INTERVAL '15 MINUTES' * FLOOR(EXTRACT(MINUTE FROM @) / 15)",
        "DATE_TRUNC('WEEK', @ + INTERVAL '1 DAY') - INTERVAL '1 DAY'",
        "to_char(@, 'YYYY-\"Q\"Q')",
        "to_char(@, 'IYYY-IW')",
        "date_trunc('day', @)::date",
        "EXTRACT(doy FROM @)",
        "date_bin('1 day', @, timestamp '2000-01-01')",
        "@::timestamptz",
    ];
    random.pick::<&str>(forms).replace('@', column)
}

/// A condition on what a key stands for.
pub(super) fn filter_on_key(key: &str, ty: Type, random: &mut Random) -> String {
    match ty {
        Type::Timestamp | Type::Instant if key != column_of(key) || random.chance(80) => {
            predicate(column_of(key), ty, random)
        }
        _ => predicate(key, ty, random),
    }
}

/// A range as Superset writes it: half open, of whole days, which may be those on which clocks change.
fn superset_range(random: &mut Random) -> String {
    let day = |random: &mut Random| {
        *random.pick(&[
            "1970-01-01",
            "2011-12-31",
            "2023-01-01",
            "2024-01-01",
            "2024-02-01",
            "2024-03-10",
            "2024-03-11",
            "2024-03-31",
            "2024-04-26",
            "2024-10-27",
            "2024-11-03",
            "2025-01-01",
        ])
    };
    let (from, to) = (day(random), day(random));
    let bound =
        |day: &str| format!("TO_TIMESTAMP('{day} 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')");
    match random.below(6) {
        4 => format!("@ < date '{from}' + interval '{} months'", random.below(14)),
        5 => format!("@ >= timestamp '{from}' - interval '1' year"),
        0 => format!("@ >= {}", bound(from)),
        1 => format!("@ > {}", bound(from)),
        2 => format!("@ <= TO_TIMESTAMP('{to} 23:59:59.999999', 'YYYY-MM-DD HH24:MI:SS.US')"),
        _ => format!("@ >= {} AND @ < {}", bound(from), bound(to)),
    }
}

pub(super) fn predicate(column: &str, ty: Type, random: &mut Random) -> String {
    let comparison = *random.pick(&["=", "<>", "<", "<=", ">", ">="]);
    let text = match ty {
        Type::Integer => {
            let (low, high) = (random.below(4), random.below(6));
            match random.below(11) {
                8 => format!("(@, 1) IN (({low}, 1), ({high}, 1))"),
                9 => format!("(@ > {low} AND @ < {high} OR @ = 5)"),
                10 => format!("@ + {high} > {low}"),
                0 => format!("@ IN ({low}, {high})"),
                1 => format!("@ BETWEEN {low} AND {high}"),
                2 => format!("(@ IS NULL OR @ = {low})"),
                3 => format!("@ NOT IN ({low}, {high}, {})", random.pick(&["7", "NULL"])),
                4 => format!("NOT @ {comparison} {low}"),
                5 => "@ = @".to_owned(),
                6 => format!("@ IS DISTINCT FROM {low}"),
                _ => format!("@ {comparison} {low}"),
            }
        }
        Type::Text | Type::Padded | Type::Loose => {
            let value = *random.pick(&["a", "b", "A", "a ", "", "it''s", "x"]);
            match random.below(6) {
                0 => format!("@ IN ('{value}', 'b')"),
                1 => (*random.pick(&[
                    "@ LIKE 'a%'",
                    "@ ILIKE '%A%'",
                    "@ NOT LIKE '_'",
                    "@ ~ '^a'",
                    "@ = ANY ('{a,b}')",
                    "@ = ANY (ARRAY['b', 'a'])",
                    "@ <> ALL (ARRAY['b', 'x'])",
                    "@ COLLATE \"C\" < 'b'",
                ]))
                .to_owned(),
                2 => "NOT @ IS NULL".to_owned(),
                3 => format!("(@ = '{value}' OR @ = 'red')"),
                4 => format!("'{value}' {comparison} @"),
                _ => format!("@ {comparison} '{value}'"),
            }
        }
        Type::Date | Type::Timestamp => {
            let day = *random.pick(&[
                "2024-01-01",
                "2024-02-29",
                "2024-03-01",
                "2024-04-01",
                "2024-10-01",
                "2024-12-30",
                "2025-01-01",
                "2024-01-15",
                "2024-03-10 12:00",
                "2023-12-31 23:59:59",
            ]);
            match random.below(9) {
                8 => format!("(@ >= '2024-01-01' AND @ < '{day}' OR NOT @ < '2024-12-01')"),
                0 => format!("@ >= '{day}' AND @ < '2025-01-01'"),
                1 => format!("@ BETWEEN '2024-01-01' AND '{day}'"),
                // Ends inside buckets, with whole ones between them.
                6 => format!("@ > '{day}' AND @ <= '2025-03-31 23:45:30.5'"),
                7 => "@ >= DATE '2023-12-31' AND @ < TIMESTAMP '2024-12-30 09:42'".to_owned(),
                2 => format!("@ >= TO_TIMESTAMP('{}', 'YYYY-MM-DD')", &day[..10]),
                3 => format!("@ < DATE '{day}'"),
                4 if random.chance(50) => superset_range(random),
                4 => format!("@ >= TIMESTAMP '{day}'"),
                // Where clocks skip this hour, other local times are the same instant.
                5 if random.chance(30) => "@ = TIMESTAMPTZ '2024-03-10 03:30:00-04'".to_owned(),
                _ => format!("@ {} '{day}'", random.pick(&[">=", "<", "<=", ">"])),
            }
        }
        Type::Instant => {
            let moment = *random.pick(&[
                "2024-03-10 02:30:00",
                "2024-03-31 00:00",
                "2024-11-03 01:30",
                "2024-04-01 00:00+00",
                "2024-10-27 00:00",
                "2025-01-01",
            ]);
            match random.below(7) {
                0 => format!("@ >= TO_TIMESTAMP('{}', 'YYYY-MM-DD')", &moment[..10]),
                4 => superset_range(random),
                1 => format!("@ >= '2024-01-01' AND @ < '{moment}'"),
                // Ends inside buckets, near changes of clocks.
                5 => format!("@ > TIMESTAMP '2024-03-10 02:37' AND @ <= '{moment}'"),
                6 => "@ >= '2023-12-31 23:59' AND @ < TIMESTAMP '2024-11-03 01:42'".to_owned(),
                2 => format!("@ < DATE '{}'", &moment[..10]),
                _ => format!("@ {comparison} '{moment}'"),
            }
        }
        Type::Boolean => (*random.pick(&[
            "@ IS NOT NULL",
            "@ IS NULL",
            "@",
            "NOT @",
            "@ IS NOT TRUE",
            "@ = true",
            "coalesce(@, false)",
        ]))
        .to_owned(),
        Type::Scaled | Type::Numeric => match random.below(3) {
            0 => format!("@ IN (1, 1.5, {})", random.below(3)),
            1 => format!("@ BETWEEN {} AND 2.5", random.below(3)),
            _ => format!("@ {comparison} {}", random.pick(&["1", "1.5", "0", "1.50"])),
        },
        Type::Float => format!("@ {comparison} 1.5"),
        Type::Enum => match random.below(3) {
            0 => "@ IN ('sad', 'Glad')".to_owned(),
            1 => "@ IS NULL".to_owned(),
            _ => format!("@ {comparison} 'ok'"),
        },
        Type::Interval => format!("@ {comparison} interval '24 hours'"),
        Type::Uuid => format!("@ {comparison} '00000000-0000-0000-0000-000000000002'"),
    };
    text.replace('@', column)
}
