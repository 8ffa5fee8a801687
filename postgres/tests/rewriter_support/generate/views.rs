//! Views over a star, and queries over views: plain, behind a barrier, one over another, and such as aggregate.

use super::push_new;
use super::render::{flattened, group_by_positions, plain, renamed};
use super::shape::{Join, Shape};
use super::star::Star;
use crate::rewriter_support::data::Random;

/// Views that show the same joins.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// What they are called before their endings.
    pub(super) name: String,
    pub(super) joins: Vec<Join>,
    /// What the one that aggregates groups by and computes, as its columns `c0`, `c1` and so on.
    pub(super) cells: Shape,
}

impl Star {
    pub(super) fn add_views(&mut self, random: &mut Random) {
        for number in 0..random.below(3) {
            let joins = self.joins(random);
            let cells = self.rollup_over(joins.clone(), random);
            let name = format!("view{number}");
            let columns: Vec<String> = self
                .visible(&joins)
                .iter()
                .map(|(column, _)| {
                    format!("{column} AS {}", flattened(&column[1..column.len() - 1]))
                })
                .collect();
            let (from, _) = self.from(&joins, &[], false);
            let rows = plain(&format!("SELECT {} FROM {from}", columns.join(", ")));
            // A view has one column of each name: nothing else may be called so.
            let mut names: Vec<String> = vec![];
            for column in &columns {
                push_new(&mut names, column.rsplit(" AS ").next().unwrap().to_owned());
            }
            if names.len() < columns.len() {
                continue;
            }
            self.ddl += &format!(
                "CREATE VIEW {name} AS {rows};\n\n\
                 CREATE VIEW {name}_guarded WITH (security_barrier = true) AS SELECT * FROM {name};\n\n\
                 CREATE VIEW {name}_nested AS SELECT * FROM {name} AS inside WHERE {} IS NOT NULL;\n\n",
                random.pick(&names)
            );
            let view = View { name, joins, cells };
            let cells = plain(&self.cells(&view));
            // What cannot be a view, for want of a type or a function, is left out.
            self.ddl += &format!(
                "DO $$ BEGIN CREATE VIEW {}_cells AS {cells}; EXCEPTION WHEN OTHERS THEN NULL; END $$;\n\n",
                view.name
            );
            self.views.push(view);
        }
    }

    /// The SELECT of the view that aggregates.
    fn cells(&self, view: &View) -> String {
        let values = view.cells.keys.iter().chain(&view.cells.aggregates);
        let items: Vec<String> = values
            .enumerate()
            .map(|(position, value)| format!("{value} AS c{position}"))
            .collect();
        let (from, filter) = self.from(&view.joins, &view.cells.filters, false);
        let group_by = group_by_positions(view.cells.keys.len());
        format!("SELECT {} FROM {from}{filter}{group_by}", items.join(", "))
    }

    /// The query over a view that shows its joins, or over the cells of one.
    pub(super) fn over_view(&self, query: &Shape, random: &mut Random) -> Option<String> {
        let view = self.views.iter().find(|view| view.joins == query.joins)?;
        let ending = *random.pick(&["", "", "_nested", "_guarded", "_cells", "_cells"]);
        let name = format!("{}{ending}", view.name);
        if ending == "_cells" {
            let keys = view.cells.keys.len();
            let measure = keys + random.below(view.cells.aggregates.len());
            let function = random.pick(&["sum", "max", "count", "min"]);
            return Some(match random.below(4) {
                0 => format!("SELECT * FROM {name}"),
                1 => format!("SELECT count(*) FROM {name}"),
                _ if keys == 0 => format!("SELECT {function}(c{measure}) FROM {name}"),
                2 => format!("SELECT c0, c{measure} FROM {name} WHERE c0 IS NOT NULL"),
                _ => format!("SELECT c0, {function}(c{measure}), count(*) FROM {name} GROUP BY c0"),
            });
        }
        let values = query.keys.iter().chain(&query.aggregates);
        let items: Vec<String> = values
            .enumerate()
            .map(|(position, value)| format!("{value} AS c{position}"))
            .collect();
        let filter = match query.filters.is_empty() {
            true => String::new(),
            false => format!("\nWHERE {}", query.filters.join(" AND ")),
        };
        let group_by = group_by_positions(query.keys.len());
        Some(renamed(&format!(
            "SELECT {}\nFROM {name} AS v{filter}{group_by}",
            items.join(", ")
        )))
    }
}
