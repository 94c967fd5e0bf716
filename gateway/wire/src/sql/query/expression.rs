//! What expressions want: each node of the tree by name, and the types that they surely have.

use pg_query::protobuf::{AExprKind, SubLinkType, WindowDef};
use pg_query::{Node, NodeEnum};

use super::{Typed, Walk, join, strings};

impl<'a> Walk<'a> {
    pub(in crate::sql) fn all(&mut self, nodes: &'a [Node]) {
        for node in nodes {
            self.expression(node);
        }
    }

    /// A list that may have holes.
    pub(super) fn all_optional(&mut self, nodes: &'a [Node]) {
        for node in nodes.iter().filter(|node| node.node.is_some()) {
            self.expression(node);
        }
    }

    pub(in crate::sql) fn optional(&mut self, node: Option<&'a Node>) {
        if let Some(node) = node {
            self.expression(node);
        }
    }

    pub(super) fn types(&mut self, nodes: &'a [Node]) -> Vec<Typed> {
        nodes.iter().map(|node| self.expression(node)).collect()
    }

    pub(super) fn expression(&mut self, node: &'a Node) -> Typed {
        let Some(node) = node.node.as_ref() else {
            // An empty place in a list: `a[:2]`, `DEFAULT` of a cycle.
            return Typed::Literal;
        };
        match node {
            NodeEnum::AConst(constant) => match constant.val {
                Some(pg_query::protobuf::a_const::Val::Sval(_)) | None => Typed::Literal,
                Some(_) => Typed::Builtin,
            },
            NodeEnum::ColumnRef(column) => self.column(column),
            NodeEnum::ParamRef(_) => Typed::Any,
            NodeEnum::AExpr(_) | NodeEnum::AIndirection(_) | NodeEnum::SubLink(_) | NodeEnum::CaseExpr(_) => {
                self.compound(node)
            }
            NodeEnum::TypeCast(cast) => {
                let from = cast.arg.as_deref().map_or(Typed::Any, |arg| self.expression(arg));
                self.type_name_from(cast.type_name.as_ref(), from)
            }
            NodeEnum::FuncCall(call) => self.function_call(call),
            NodeEnum::BoolExpr(expression) => {
                self.all(&expression.args);
                Typed::Builtin
            }
            NodeEnum::NullTest(test) => {
                self.optional(test.arg.as_deref());
                Typed::Builtin
            }
            NodeEnum::BooleanTest(test) => {
                self.optional(test.arg.as_deref());
                Typed::Builtin
            }
            NodeEnum::CoalesceExpr(expression) => join(&self.types(&expression.args)),
            NodeEnum::MinMaxExpr(expression) => join(&self.types(&expression.args)),
            NodeEnum::RowExpr(row) => {
                self.all(&row.args);
                Typed::Any
            }
            NodeEnum::AArrayExpr(array) => join(&self.types(&array.elements)),
            NodeEnum::CollateClause(clause) => match clause.arg.as_deref() {
                Some(arg) => self.expression(arg),
                None => Typed::Any,
            },
            NodeEnum::SqlvalueFunction(_) | NodeEnum::MergeSupportFunc(_) => Typed::Builtin,
            NodeEnum::GroupingFunc(grouping) => {
                self.all(&grouping.args);
                Typed::Builtin
            }
            NodeEnum::NamedArgExpr(named) => {
                self.optional(named.arg.as_deref());
                Typed::Any
            }
            NodeEnum::ResTarget(target) => {
                self.all(&target.indirection);
                self.optional(target.val.as_deref());
                Typed::Any
            }
            NodeEnum::List(list) => join(&self.types(&list.items)),
            NodeEnum::SetToDefault(_)
            | NodeEnum::AStar(_)
            | NodeEnum::String(_)
            | NodeEnum::CurrentOfExpr(_) => Typed::Any,
            other => {
                self.clause(other);
                Typed::Any
            }
        }
    }

    /// Expressions that hold others and operators.
    fn compound(&mut self, node: &'a NodeEnum) -> Typed {
        match node {
            NodeEnum::AExpr(expression) => self.operation(expression),
            NodeEnum::AIndirection(indirection) => self.indirection(indirection),
            NodeEnum::SubLink(link) => {
                let test = link.testexpr.as_deref().map(|test| self.expression(test));
                match link.subselect.as_deref() {
                    Some(query) => self.query(query),
                    None => self.opaque(),
                }
                if let Some(test) = test {
                    match strings(&link.oper_name).as_deref() {
                        Some([]) => self.operator("", "=", test, Typed::Any),
                        Some([name]) => self.operator("", name, test, Typed::Any),
                        Some([schema, name]) => self.operator(schema, name, test, Typed::Any),
                        _ => self.opaque(),
                    }
                }
                match SubLinkType::try_from(link.sub_link_type) {
                    Ok(SubLinkType::ExistsSublink | SubLinkType::AllSublink | SubLinkType::AnySublink) => {
                        Typed::Builtin
                    }
                    _ => Typed::Any,
                }
            }
            NodeEnum::CaseExpr(case) => {
                let tested = case.arg.as_deref().map(|arg| self.expression(arg));
                let mut results = Vec::new();
                for when in &case.args {
                    let Some(NodeEnum::CaseWhen(when)) = when.node.as_ref() else {
                        self.opaque();
                        continue;
                    };
                    let condition = when.expr.as_deref().map_or(Typed::Any, |expr| self.expression(expr));
                    if let Some(tested) = tested {
                        self.operator("", "=", tested, condition);
                    }
                    results.push(when.result.as_deref().map_or(Typed::Any, |result| self.expression(result)));
                }
                if let Some(otherwise) = case.defresult.as_deref() {
                    results.push(self.expression(otherwise));
                }
                join(&results)
            }
            _ => Typed::Any,
        }
    }

    fn operation(&mut self, expression: &'a pg_query::protobuf::AExpr) -> Typed {
        let left = expression.lexpr.as_deref().map_or(Typed::Builtin, |left| self.expression(left));
        let right = expression.rexpr.as_deref().map_or(Typed::Builtin, |right| self.expression(right));
        let name = strings(&expression.name);
        let (schema, name) = match name.as_deref() {
            Some([name]) => ("", *name),
            Some([schema, name]) => (*schema, *name),
            _ => {
                self.opaque();
                return Typed::Any;
            }
        };
        match AExprKind::try_from(expression.kind) {
            Ok(
                AExprKind::AexprBetween
                | AExprKind::AexprNotBetween
                | AExprKind::AexprBetweenSym
                | AExprKind::AexprNotBetweenSym,
            ) => {
                for name in ["<", "<=", ">", ">="] {
                    self.operator("", name, left, right);
                }
            }
            Ok(
                AExprKind::AexprOp
                | AExprKind::AexprOpAny
                | AExprKind::AexprOpAll
                | AExprKind::AexprDistinct
                | AExprKind::AexprNotDistinct
                | AExprKind::AexprNullif
                | AExprKind::AexprIn
                | AExprKind::AexprLike
                | AExprKind::AexprIlike
                | AExprKind::AexprSimilar,
            ) => self.operator(schema, name, left, right),
            _ => self.opaque(),
        }
        match (left, right) {
            (Typed::Any, _) | (_, Typed::Any) => Typed::Any,
            _ => Typed::Builtin,
        }
    }

    /// Parts of queries that stand where expressions do.
    fn clause(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::SortBy(sort) => {
                let typed = sort.node.as_deref().map_or(Typed::Any, |node| self.expression(node));
                match strings(&sort.use_op).as_deref() {
                    Some([]) => {}
                    Some([name]) => self.operator("", name, typed, typed),
                    Some([schema, name]) => self.operator(schema, name, typed, typed),
                    _ => self.opaque(),
                }
            }
            NodeEnum::WindowDef(window) => self.window(window),
            NodeEnum::GroupingSet(set) => self.all(&set.content),
            NodeEnum::AIndices(indices) => {
                self.optional(indices.lidx.as_deref());
                self.optional(indices.uidx.as_deref());
            }
            NodeEnum::MultiAssignRef(assign) => self.optional(assign.source.as_deref()),
            NodeEnum::IndexElem(element) => {
                self.optional(element.expr.as_deref());
            }
            NodeEnum::ColumnDef(column) => {
                self.type_name(column.type_name.as_ref());
                self.optional(column.raw_default.as_deref());
            }
            NodeEnum::TypeName(name) => {
                self.type_name(Some(name));
            }
            NodeEnum::XmlExpr(xml) => {
                self.all(&xml.named_args);
                self.all_optional(&xml.args);
            }
            NodeEnum::XmlSerialize(xml) => {
                self.optional(xml.expr.as_deref());
                self.type_name(xml.type_name.as_ref());
            }
            NodeEnum::RangeTableFuncCol(column) => {
                self.type_name_unless_ordinality(column.type_name.as_ref());
                self.optional(column.colexpr.as_deref());
                self.optional(column.coldefexpr.as_deref());
            }
            _ => self.json(node),
        }
    }

    /// The SQL/JSON constructors and queries: built into the grammar, they call nothing by name.
    fn json(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::JsonFuncExpr(json) => {
                self.json_value(json.context_item.as_deref());
                self.optional(json.pathspec.as_deref());
                self.all(&json.passing);
                self.json_output(json.output.as_ref());
                for behavior in [&json.on_empty, &json.on_error].into_iter().flatten() {
                    self.optional(behavior.expr.as_deref());
                }
            }
            NodeEnum::JsonValueExpr(value) => self.json_value(Some(value)),
            NodeEnum::JsonArgument(argument) => self.json_value(argument.val.as_deref()),
            NodeEnum::JsonKeyValue(pair) => {
                self.optional(pair.key.as_deref());
                self.json_value(pair.value.as_deref());
            }
            NodeEnum::JsonIsPredicate(test) => self.optional(test.expr.as_deref()),
            NodeEnum::JsonParseExpr(json) => {
                self.json_value(json.expr.as_deref());
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonScalarExpr(json) => {
                self.optional(json.expr.as_deref());
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonSerializeExpr(json) => {
                self.json_value(json.expr.as_deref());
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonObjectConstructor(json) => {
                self.all(&json.exprs);
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonArrayConstructor(json) => {
                self.all(&json.exprs);
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonArrayQueryConstructor(json) => {
                match json.query.as_deref() {
                    Some(query) => self.query(query),
                    None => self.opaque(),
                }
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonObjectAgg(json) => {
                self.json_aggregate(json.constructor.as_deref());
                if let Some(pair) = json.arg.as_deref() {
                    self.optional(pair.key.as_deref());
                    self.json_value(pair.value.as_deref());
                }
            }
            NodeEnum::JsonArrayAgg(json) => {
                self.json_aggregate(json.constructor.as_deref());
                self.json_value(json.arg.as_deref());
            }
            NodeEnum::JsonTableColumn(column) => {
                self.type_name_unless_ordinality(column.type_name.as_ref());
                self.json_path(column.pathspec.as_deref());
                self.all(&column.columns);
                for behavior in [&column.on_empty, &column.on_error].into_iter().flatten() {
                    self.optional(behavior.expr.as_deref());
                }
            }
            NodeEnum::JsonTablePathSpec(path) => self.json_path(Some(path)),
            _ => self.opaque(),
        }
    }

    pub(super) fn json_value(&mut self, value: Option<&'a pg_query::protobuf::JsonValueExpr>) {
        if let Some(value) = value {
            self.optional(value.raw_expr.as_deref());
        }
    }

    pub(super) fn json_path(&mut self, path: Option<&'a pg_query::protobuf::JsonTablePathSpec>) {
        if let Some(path) = path {
            self.optional(path.string.as_deref());
        }
    }

    fn json_output(&mut self, output: Option<&'a pg_query::protobuf::JsonOutput>) {
        if let Some(output) = output {
            self.type_name_unless_ordinality(output.type_name.as_ref());
        }
    }

    fn json_aggregate(&mut self, constructor: Option<&'a pg_query::protobuf::JsonAggConstructor>) {
        let Some(constructor) = constructor else { return };
        self.json_output(constructor.output.as_ref());
        self.optional(constructor.agg_filter.as_deref());
        self.all(&constructor.agg_order);
        if let Some(window) = constructor.over.as_deref() {
            self.window(window);
        }
    }

    pub(super) fn window(&mut self, window: &'a WindowDef) {
        self.all(&window.partition_clause);
        self.all(&window.order_clause);
        self.optional(window.start_offset.as_deref());
        self.optional(window.end_offset.as_deref());
    }
}
