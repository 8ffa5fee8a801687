//! A catalog from `CREATE TABLE` and its kin: only what the schemas of the cases use, and a panic
//! for anything else. That it agrees with PostgreSQL's own catalog is tested in the postgres crate.

use pgstar_rewriter::catalog::{
    AttNum, Catalog, Column, ColumnType, ForeignKey, Oid, Relation, RelationKind, UserNames, View,
};
use sqlparser::ast::{
    AlterTableOperation, CharacterLength, ColumnDef, ColumnOption, CreateTable, DataType,
    ExactNumberInfo, Expr, ForeignKeyConstraint, Ident, IndexColumn, ObjectName, Query, SelectItem,
    SetExpr, Statement, TableConstraint, TimezoneInfo,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

const DEFAULT_COLLATION: u32 = 100;
const C_COLLATION: u32 = 950;

/// The columns of a view, of no known type: what they show is computed anew.
fn view_columns(query: &Query) -> Vec<Column> {
    let SetExpr::Select(select) = &*query.body else {
        panic!("the cases' DDL does not understand the view {query}");
    };
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => name.value.clone(),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().unwrap().value.clone()
        }
        other => panic!("a view's column needs a name: {other}"),
    };
    let column = |(position, item): (usize, &SelectItem)| Column {
        attnum: AttNum(position as i16 + 1),
        name: name(item),
        ty: ColumnType {
            oid: Oid(0),
            typmod: -1,
            collation: Oid(0),
        },
        not_null: false,
    };
    select.projection.iter().enumerate().map(column).collect()
}

#[derive(Default)]
struct Builder {
    relations: Vec<Relation>,
    names: UserNames,
    /// Enums, domains and collations, by name.
    types: Vec<(String, u32)>,
    collations: Vec<(String, u32)>,
    next_oid: u32,
}

/// The catalog after these statements.
pub fn catalog(sql: &str) -> Catalog {
    let mut builder = Builder {
        next_oid: 16384,
        ..Builder::default()
    };
    for statement in statements(sql) {
        builder.run(&statement);
    }
    Catalog::new(builder.relations, builder.names)
}

/// Splits at semicolons that end a line, which is all that these files need.
fn statements(sql: &str) -> Vec<String> {
    let without_comments: Vec<&str> = sql
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect();
    let text = without_comments.join("\n") + "\n";
    text.split(";\n")
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect()
}

impl Builder {
    fn oid(&mut self) -> u32 {
        self.next_oid += 1;
        self.next_oid
    }

    fn run(&mut self, sql: &str) {
        // sqlparser knows no rules.
        if let Some(rest) = sql.strip_prefix("CREATE RULE ") {
            let table = rest.split(" TO ").nth(1).unwrap();
            let table = table.split_whitespace().next().unwrap();
            self.named("public", table).has_rules = true;
            return;
        }
        let mut parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql)
            .unwrap_or_else(|error| panic!("{error} in:\n{sql}"));
        match parsed.remove(0) {
            Statement::CreateSchema { .. } | Statement::CreateSequence { .. } => {}
            Statement::CreateTable(table) => self.create_table(table),
            Statement::CreateView(view) => {
                let kind = if view.materialized {
                    RelationKind::MaterializedView
                } else {
                    RelationKind::View
                };
                let columns = view_columns(&view.query);
                self.add_relation(&view.name, kind, columns);
                if !view.materialized {
                    let relation = self.relations.last_mut().unwrap();
                    relation.view = Some(View {
                        definition: view.query.to_string(),
                        is_barrier: sql.contains("security_barrier"),
                    });
                }
            }
            Statement::CreateType { name, .. } => {
                let oid = self.add_type(&name);
                self.names.enum_types.insert(Oid(oid));
            }
            Statement::CreateDomain(domain) => {
                self.add_type(&domain.name);
            }
            Statement::CreateCollation(collation) => {
                let oid = self.oid();
                self.collations.push((last(&collation.name), oid));
                if sql.contains("deterministic = false") {
                    self.names.nondeterministic_collations.insert(Oid(oid));
                }
            }
            Statement::CreateFunction(function) => {
                self.names.functions.insert(last(&function.name));
            }
            Statement::CreateOperator(operator) => {
                self.names.operators.insert(last(&operator.name));
            }
            Statement::CreateIndex(index) => {
                let is_key = index.unique && index.predicate.is_none();
                if is_key && let Some(columns) = plain_columns(&index.columns) {
                    let relation = self.relation_mut(&index.table_name);
                    let key = attnums(relation, &columns);
                    relation.unique_keys.push(key);
                }
            }
            Statement::AlterTable(alter) => {
                for operation in alter.operations {
                    self.alter(&alter.name, operation);
                }
            }
            other => panic!("the cases' DDL does not understand {other}"),
        }
    }

    fn alter(&mut self, table: &ObjectName, operation: AlterTableOperation) {
        match operation {
            AlterTableOperation::EnableRowLevelSecurity => {
                self.relation_mut(table).row_security = true;
            }
            AlterTableOperation::AddConstraint {
                constraint,
                not_valid,
            } => {
                let is_foreign_key = matches!(constraint, TableConstraint::ForeignKey(_));
                if !(is_foreign_key && not_valid) {
                    let oid = self.relation_mut(table).oid;
                    self.constrain(oid, constraint);
                }
            }
            other => panic!("the cases' DDL does not understand {other}"),
        }
    }

    fn add_type(&mut self, name: &ObjectName) -> u32 {
        let oid = self.oid();
        self.types.push((last(name), oid));
        oid
    }

    fn add_relation(&mut self, name: &ObjectName, kind: RelationKind, columns: Vec<Column>) -> Oid {
        let oid = Oid(self.oid());
        let parts = parts(name);
        let schema = match parts.as_slice() {
            [schema, _] => schema.clone(),
            _ => "public".to_owned(),
        };
        self.relations.push(Relation {
            oid,
            schema,
            name: last(name),
            kind,
            columns,
            unique_keys: vec![],
            foreign_keys: vec![],
            row_security: false,
            has_rules: false,
            view: None,
        });
        oid
    }

    fn create_table(&mut self, table: CreateTable) {
        let mut columns: Vec<Column> = Vec::new();
        for parent in table.inherits.iter().flatten() {
            columns.extend(self.relation_mut(parent).columns.clone());
        }
        for definition in &table.columns {
            columns.push(self.column(columns.len(), definition));
        }
        let kind = if table.partition_by.is_some() {
            RelationKind::PartitionedTable
        } else {
            RelationKind::Table
        };
        let oid = self.add_relation(&table.name, kind, columns);
        if let Some(parents) = &table.inherits {
            for parent in parents {
                self.forget_facts(parent);
            }
        }
        for definition in &table.columns {
            for option in &definition.options {
                self.column_option(oid, &definition.name, &option.option);
            }
        }
        for constraint in table.constraints {
            self.constrain(oid, constraint);
        }
    }

    /// A scan of a parent returns the children's rows, which none of its constraints cover.
    fn forget_facts(&mut self, parent: &ObjectName) {
        let relation = self.relation_mut(parent);
        relation.unique_keys.clear();
        relation.foreign_keys.clear();
        for column in &mut relation.columns {
            column.not_null = false;
        }
    }

    fn column(&self, position: usize, definition: &ColumnDef) -> Column {
        let mut ty = self.column_type(&definition.data_type);
        for option in &definition.options {
            if let ColumnOption::Collation(name) = &option.option {
                ty.collation = Oid(self.collation(&last(name)));
            }
        }
        Column {
            attnum: AttNum(position as i16 + 1),
            name: fold(&definition.name),
            ty,
            not_null: false,
        }
    }

    fn collation(&self, name: &str) -> u32 {
        match name {
            "C" => C_COLLATION,
            _ => {
                let known = self.collations.iter().find(|(known, _)| known == name);
                known.unwrap_or_else(|| panic!("collation {name}")).1
            }
        }
    }

    fn column_option(&mut self, table: Oid, column: &Ident, option: &ColumnOption) {
        let columns = vec![fold(column)];
        match option {
            ColumnOption::NotNull => self.set_not_null(table, &columns),
            ColumnOption::PrimaryKey(_) => {
                self.set_not_null(table, &columns);
                self.add_key(table, &columns);
            }
            ColumnOption::Unique(unique) if !is_deferrable(&unique.characteristics) => {
                self.add_key(table, &columns);
            }
            ColumnOption::ForeignKey(key) => self.add_foreign_key(table, columns, key),
            ColumnOption::Unique(_) | ColumnOption::Null => {}
            ColumnOption::Collation(_) | ColumnOption::Check(_) | ColumnOption::Default(_) => {}
            other => panic!("the cases' DDL does not understand {other}"),
        }
    }

    fn constrain(&mut self, table: Oid, constraint: TableConstraint) {
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                let columns = plain_columns(&key.columns).unwrap();
                self.set_not_null(table, &columns);
                self.add_key(table, &columns);
            }
            TableConstraint::Unique(key) => {
                if !is_deferrable(&key.characteristics) {
                    self.add_key(table, &plain_columns(&key.columns).unwrap());
                }
            }
            TableConstraint::ForeignKey(key) => {
                let columns = key.columns.iter().map(fold).collect();
                self.add_foreign_key(table, columns, &key);
            }
            TableConstraint::Check(_) => {}
            other => panic!("the cases' DDL does not understand {other}"),
        }
    }

    fn set_not_null(&mut self, table: Oid, columns: &[String]) {
        let relation = self.by_oid(table);
        for column in &mut relation.columns {
            column.not_null |= columns.contains(&column.name);
        }
    }

    fn add_key(&mut self, table: Oid, columns: &[String]) {
        let relation = self.by_oid(table);
        let key = attnums(relation, columns);
        relation.unique_keys.push(key);
    }

    fn add_foreign_key(&mut self, table: Oid, columns: Vec<String>, key: &ForeignKeyConstraint) {
        if is_deferrable(&key.characteristics) {
            return;
        }
        let target = self.relation_mut(&key.foreign_table);
        let references = target.oid;
        let referenced_columns = if key.referred_columns.is_empty() {
            target.unique_keys.first().unwrap().clone()
        } else {
            let names: Vec<String> = key.referred_columns.iter().map(fold).collect();
            attnums(target, &names)
        };
        let relation = self.by_oid(table);
        let columns = attnums(relation, &columns);
        relation.foreign_keys.push(ForeignKey {
            columns,
            references,
            referenced_columns,
        });
    }

    fn by_oid(&mut self, oid: Oid) -> &mut Relation {
        let mut relations = self.relations.iter_mut();
        relations.find(|relation| relation.oid == oid).unwrap()
    }

    fn relation_mut(&mut self, name: &ObjectName) -> &mut Relation {
        match parts(name).as_slice() {
            [schema, table] => self.named(schema, table),
            [table] => self.named("public", table),
            _ => panic!("{name}"),
        }
    }

    fn named(&mut self, schema: &str, table: &str) -> &mut Relation {
        let mut relations = self.relations.iter_mut();
        relations
            .find(|relation| relation.schema == schema && relation.name == table)
            .unwrap_or_else(|| panic!("table {schema}.{table}"))
    }

    fn column_type(&self, ty: &DataType) -> ColumnType {
        let plain = |oid: u32| ColumnType {
            oid: Oid(oid),
            typmod: -1,
            collation: Oid(0),
        };
        let text = |oid: u32, typmod: i32| ColumnType {
            oid: Oid(oid),
            typmod,
            collation: Oid(DEFAULT_COLLATION),
        };
        let length = |length: &Option<CharacterLength>| match length {
            Some(CharacterLength::IntegerLength { length, .. }) => *length as i32 + 4,
            _ => -1,
        };
        match ty {
            DataType::Bool | DataType::Boolean => plain(16),
            DataType::Bytea => plain(17),
            DataType::Int8(_) | DataType::BigInt(_) => plain(20),
            DataType::Int2(_) | DataType::SmallInt(_) => plain(21),
            DataType::Int(_) | DataType::Int4(_) | DataType::Integer(_) => plain(23),
            DataType::Text => text(25, -1),
            DataType::JSONB => plain(3802),
            DataType::Real | DataType::Float4 => plain(700),
            DataType::DoublePrecision | DataType::Float8 => plain(701),
            DataType::Varchar(n) | DataType::CharacterVarying(n) => text(1043, length(n)),
            DataType::Char(n) | DataType::Character(n) => text(1042, length(n).max(5)),
            DataType::Date => plain(1082),
            DataType::Time(None, TimezoneInfo::None) => plain(1083),
            DataType::Timestamp(None, TimezoneInfo::None) => plain(1114),
            DataType::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => plain(1184),
            DataType::Interval { .. } => plain(1186),
            DataType::Uuid => plain(2950),
            DataType::Numeric(info) => ColumnType {
                typmod: numeric_typmod(info),
                ..plain(1700)
            },
            DataType::Custom(name, _) => {
                let name = last(name);
                let known = self.types.iter().find(|(known, _)| *known == name);
                let (_, oid) = known.unwrap_or_else(|| panic!("type {name}"));
                plain(*oid)
            }
            other => panic!("the cases' DDL does not understand type {other}"),
        }
    }
}

fn numeric_typmod(info: &ExactNumberInfo) -> i32 {
    match info {
        ExactNumberInfo::None => -1,
        ExactNumberInfo::Precision(precision) => ((*precision as i32) << 16) + 4,
        ExactNumberInfo::PrecisionAndScale(precision, scale) => {
            (((*precision as i32) << 16) | *scale as i32) + 4
        }
    }
}

fn is_deferrable(characteristics: &Option<sqlparser::ast::ConstraintCharacteristics>) -> bool {
    characteristics
        .as_ref()
        .is_some_and(|characteristics| characteristics.deferrable == Some(true))
}

fn plain_columns(columns: &[IndexColumn]) -> Option<Vec<String>> {
    let name = |column: &IndexColumn| match &column.column.expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        _ => None,
    };
    columns.iter().map(name).collect()
}

fn attnums(relation: &Relation, columns: &[String]) -> Vec<AttNum> {
    columns
        .iter()
        .map(|column| relation.column(column).unwrap().attnum)
        .collect()
}

fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn parts(name: &ObjectName) -> Vec<String> {
    name.0
        .iter()
        .map(|part| match part.as_ident() {
            Some(ident) => fold(ident),
            None => part.to_string(),
        })
        .collect()
}

fn last(name: &ObjectName) -> String {
    parts(name).pop().unwrap()
}
