//! Which functions an expression may call.
//!
//! A scalar function is one that DataFusion has, or that [`crate::rewrite`] puts into other words. Those that read the
//! wall clock are refused: after a failure the same rows are computed again, and must come out the same.

use datafusion::execution::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
};
use flott_proto::job_graph::AggregateFunction;

use crate::error::{Position, SqlError, nearest};
use crate::rewrite::is_rewritten;
use crate::script::Words;

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Scalar,
    Aggregate(AggregateFunction),
}

const AGGREGATES: [(&str, AggregateFunction); 5] = [
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("avg", AggregateFunction::Avg),
];

/// Flink's functions that read the clock and are not DataFusion's, or are keywords.
const CLOCKS: [&str; 7] = [
    "current_timestamp",
    "current_date",
    "current_time",
    "localtimestamp",
    "localtime",
    "proctime",
    "unix_timestamp",
];

/// Flink's functions that have no namesake, and what to write instead.
const REMEDIES: [(&str, &str); 12] = [
    ("year", "write EXTRACT(YEAR FROM x)"),
    ("quarter", "write EXTRACT(QUARTER FROM x)"),
    ("month", "write EXTRACT(MONTH FROM x)"),
    ("week", "write EXTRACT(WEEK FROM x)"),
    ("dayofyear", "write EXTRACT(DOY FROM x)"),
    ("dayofmonth", "write EXTRACT(DAY FROM x)"),
    ("dayofweek", "write EXTRACT(DOW FROM x)"),
    ("hour", "write EXTRACT(HOUR FROM x)"),
    ("minute", "write EXTRACT(MINUTE FROM x)"),
    ("second", "write EXTRACT(SECOND FROM x)"),
    ("if", "write CASE WHEN condition THEN a ELSE b END"),
    ("truncate", "write TRUNC(x, digits)"),
];

/// The function's name in lower case.
pub(crate) fn name_of(function: &Function) -> String {
    function.name.to_string().to_lowercase()
}

/// Which kind of call this is, if Flott has it and it has no clause that Flott lacks.
pub(crate) fn classify(
    state: &SessionState,
    words: &Words,
    function: &Function,
    position: Position,
) -> Result<Call, SqlError> {
    let name = name_of(function);
    let shown = name.to_uppercase();
    let unsupported = |construct: &str, remedy: &str| {
        Err(SqlError::unsupported(
            position,
            &format!("{construct} {shown}"),
            remedy,
        ))
    };
    if function.over.is_some() {
        let over = words.after(position, "OVER");
        let construct = format!("the OVER clause of {shown}");
        let remedy =
            "aggregate in a window: FROM TABLE(TUMBLE(...)) GROUP BY window_start, window_end";
        return Err(SqlError::unsupported(over, &construct, remedy));
    }
    if function.name.0.len() != 1 {
        return unsupported(
            "the qualified function name",
            "write the function's name alone",
        );
    }
    match name.as_str() {
        "hop" | "session" | "cumulate" => {
            return unsupported("the window function", "Flott has TUMBLE");
        }
        "tumble" => {
            return unsupported(
                "here the window function",
                "write FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(column), INTERVAL '1' HOUR))",
            );
        }
        "tumble_start" | "tumble_end" | "tumble_rowtime" | "tumble_proctime" => {
            return unsupported(
                "the old group window function",
                "write FROM TABLE(TUMBLE(...)) and select window_start, window_end",
            );
        }
        _ => {}
    }
    let aggregate = AGGREGATES.iter().find(|(known, _)| *known == name);
    if aggregate.is_none()
        && (state.aggregate_functions().contains_key(&name)
            || state.window_functions().contains_key(&name))
    {
        return unsupported(
            "the aggregate function",
            "Flott has COUNT, SUM, MIN, MAX and AVG",
        );
    }
    if aggregate.is_none() {
        check_scalar(state, &name, position)?;
    }
    check_arguments(words, function, &name, aggregate.is_some(), position)?;
    Ok(match aggregate {
        Some((_, function)) => Call::Aggregate(*function),
        None => Call::Scalar,
    })
}

fn check_scalar(state: &SessionState, name: &str, position: Position) -> Result<(), SqlError> {
    let known = state.scalar_functions();
    let function = known.get(name);
    let clock = function.is_some_and(|udf| udf.signature().volatility == Volatility::Stable);
    if clock || CLOCKS.contains(&name) {
        return Err(SqlError::unsupported(
            position,
            &format!("the clock function {}", name.to_uppercase()),
            "rows computed again after a failure would come out different, use a column of the data",
        ));
    }
    if function.is_some() || is_rewritten(name) {
        return Ok(());
    }
    let shown = name.to_uppercase();
    let remedy = match REMEDIES.iter().find(|(flink, _)| *flink == name) {
        Some((_, remedy)) => format!(", {remedy}"),
        None => {
            let aggregates = AGGREGATES.iter().map(|(name, _)| *name);
            match nearest(name, known.keys().map(String::as_str).chain(aggregates)) {
                Some(near) => format!("; did you mean {}?", near.to_uppercase()),
                None => {
                    "; Flott has DataFusion's scalar functions, and no user-defined ones".to_owned()
                }
            }
        }
    };
    Err(SqlError::new(
        position,
        format!("unknown function {shown}{remedy}"),
    ))
}

fn check_arguments(
    words: &Words,
    function: &Function,
    name: &str,
    aggregate: bool,
    position: Position,
) -> Result<(), SqlError> {
    let shown = name.to_uppercase();
    let unsupported = |place: &str, construct: &str, remedy: &str| {
        Err(SqlError::unsupported(
            words.after(position, place),
            &format!("{construct} in {shown}"),
            remedy,
        ))
    };
    if function.filter.is_some() {
        return unsupported(
            "FILTER",
            "FILTER (WHERE ...)",
            "write the condition as CASE WHEN ... THEN x END in the argument",
        );
    }
    if !function.within_group.is_empty() {
        return unsupported("WITHIN", "WITHIN GROUP", "");
    }
    if function.null_treatment.is_some() {
        return unsupported("NULLS", "IGNORE or RESPECT NULLS", "");
    }
    let list = match &function.args {
        FunctionArguments::List(list) => list,
        FunctionArguments::None => {
            let message = format!("{shown} needs parentheses and its arguments");
            return Err(SqlError::new(position, message));
        }
        FunctionArguments::Subquery(_) => {
            return unsupported("SELECT", "a subquery", "select from it in FROM");
        }
    };
    if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
        return unsupported(
            "DISTINCT",
            "DISTINCT",
            "group by the column in the window instead",
        );
    }
    if !list.clauses.is_empty() {
        return unsupported(
            "ORDER",
            "ORDER BY or another clause among the arguments",
            "",
        );
    }
    for argument in &list.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(_)) => {}
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard)
                if name == "count" && list.args.len() == 1 => {}
            FunctionArg::Unnamed(_) => {
                let message = format!("{shown} needs expressions as arguments, not *");
                return Err(SqlError::new(position, message));
            }
            FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
                return unsupported("", "a named argument", "give the arguments in order");
            }
        }
    }
    if aggregate && list.args.len() != 1 {
        let message = format!("{shown} needs exactly one argument");
        return Err(SqlError::new(position, message));
    }
    Ok(())
}

/// The arguments of a call that passed [`classify`]; none for `COUNT(*)`.
pub(crate) fn arguments(function: &Function) -> Vec<&Expr> {
    match &function.args {
        FunctionArguments::List(list) => list
            .args
            .iter()
            .filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
