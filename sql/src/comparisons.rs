//! What may be compared with what.
//!
//! DataFusion compares a STRING with a number by turning the number into text, so that `'05' = 5` is false and
//! `'10' < 9` is true. Nobody means that. Here it is a type mismatch, as are CASE branches of both kinds.

use arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};

use crate::expressions::flink_types;

/// Fails if any part of the expression mixes STRING with numbers or BOOLEAN.
pub(crate) fn check(expression: &Expr, schema: &DFSchema) -> Result<(), DataFusionError> {
    expression.apply(|part| {
        match part {
            Expr::BinaryExpr(binary) if compares(binary.op) => {
                alike(
                    [binary.left.as_ref(), binary.right.as_ref()],
                    schema,
                    "compare",
                )?;
            }
            Expr::InList(list) => {
                let all = std::iter::once(list.expr.as_ref()).chain(&list.list);
                alike(all, schema, "compare")?;
            }
            Expr::Between(between) => {
                let all = [&between.expr, &between.low, &between.high];
                alike(all.map(AsRef::as_ref), schema, "compare")?;
            }
            Expr::Case(case) => {
                let tests = case.when_then_expr.iter().map(|(test, _)| test.as_ref());
                if let Some(operand) = &case.expr {
                    alike(
                        std::iter::once(operand.as_ref()).chain(tests),
                        schema,
                        "compare",
                    )?;
                }
                let results = case.when_then_expr.iter().map(|(_, result)| result);
                let results = results.chain(&case.else_expr).map(AsRef::as_ref);
                alike(results, schema, "choose between")?;
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn alike<'a>(
    parts: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
    verb: &str,
) -> Result<(), DataFusionError> {
    let (mut text, mut other) = (None, None);
    for part in parts {
        // A part that has no type yet fails by itself, with a better message.
        let Ok(data_type) = part.get_type(schema) else {
            continue;
        };
        if is_text(&data_type) {
            text = Some(data_type);
        } else if data_type.is_numeric() || data_type == ArrowType::Boolean {
            other = Some(data_type);
        }
    }
    match (text, other) {
        (Some(_), Some(other)) => {
            let other = flink_types(&other.to_string());
            Err(DataFusionError::Plan(format!(
                "type mismatch: cannot {verb} STRING and {other}; CAST one of them"
            )))
        }
        _ => Ok(()),
    }
}

fn compares(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn is_text(data_type: &ArrowType) -> bool {
    matches!(
        data_type,
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View
    )
}
