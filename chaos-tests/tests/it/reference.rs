//! The reference queries: Flott understands each, and commits the same rows whoever is killed.

use anyhow::{Context, ensure};
use flott_chaos_tests::cluster::{flott, flott_binary};
use flott_chaos_tests::workload::reference::queries::Query;
use flott_chaos_tests::workload::reference::{Pass, Reference};

use crate::alone;
use crate::program::{chaos_in, report_without_violation};

/// A run has some of them only; those that it does not have must not be found out to be wrong by the next.
#[tokio::test]
async fn each_reference_query_is_understood() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let reference = Reference::prepare(directory.path(), u64::MAX, &Query::ALL)?;
    for query in Query::ALL {
        let pass = Pass::Undisturbed;
        let script = reference.script(query, pass);
        std::fs::write(&script, reference.sql(query, pass))?;
        let script = script.to_str().context("text")?;
        let answer = flott(&flott_binary()?, &["explain", "-f", script]).await?;
        ensure!(answer.code == Some(0), "{query}: {}", answer.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn reference_queries_commit_the_same_rows_under_kills() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let arguments = [
        "run",
        "--seed",
        "3",
        "--minutes",
        "0.3",
        "--faults",
        "kill",
        "--workloads",
        "reference",
        "--keep",
    ];
    let (code, said) = chaos_in(directory.path(), &arguments).await?;
    let run = directory.path().join("seed-3");
    let report = report_without_violation(&run, code, &said)?;
    let queries = report["reference"].as_object().context("queries")?;
    ensure!(queries.len() == 3, "{report:#}");
    for (query, fared) in queries {
        ensure!(fared["rows"].as_u64() > Some(1_000), "{query}: {report:#}");
    }

    // A row that vanishes from the output afterwards is missed, and the query named.
    let (query, _) = queries.iter().next().context("a query")?;
    let output = run.join("reference").join(query).join("disturbed");
    let files = std::fs::read_dir(&output)?.flatten();
    let is_visible =
        |file: &std::fs::DirEntry| !file.file_name().as_encoded_bytes().starts_with(b".");
    let mut files = files.filter(is_visible).filter_map(|file| {
        let text = std::fs::read_to_string(file.path()).ok()?;
        text.contains('\n').then_some((file.path(), text))
    });
    let (file, text) = files.next().context("no output")?;
    let (_, rest) = text.split_once('\n').context("no lines")?;
    std::fs::write(&file, rest)?;
    let run = run.to_str().context("text")?;
    let (code, said) = chaos_in(directory.path(), &["check", run]).await?;
    ensure!(
        code == 1 && said.contains(&format!("of the query {query} 1 of")),
        "{said}"
    );
    Ok(())
}
