---------------------------- MODULE Checkpoints ----------------------------
(* The protocol checkpoint - commit - retire - delete under changes of leader, as ../src/ has it, for TLC. Written down a  *)
(* second time, so that a mistake of one is not one of both. Messages are not modelled: a leader and a task that listens   *)
(* to it may meet at any time or never. Whoever dies does nothing more, which anybody may do.                              *)
(*                                                                                                                         *)
(* Not here, but there: answers that are lost, orphans.                                                                    *)
EXTENDS Naturals, FiniteSets

CONSTANTS
  Subtasks,      \* each reads, keeps state and writes output
  Leaders,       \* 1..how many are elected
  Attempts,      \* 1..how many attempts the job has
  Checkpoints,   \* 1..how many checkpoints begin
  Defect,        \* a planted mistake, or "none"
  None

VARIABLES
  decided,       \* the replicated state
  leaders,       \* of each epoch so far: what it saw last if it is deposed, the acks it has, its proposal
  tasks,         \* by subtask and attempt
  storage,       \* the objects that exist
  visible,       \* the rows that users see
  covered,       \* those that a complete checkpoint has ever covered
  breaches       \* what went wrong and shows in no state afterwards

vars == <<decided, leaders, tasks, storage, visible, covered, breaches>>

File(s, a, c) == <<"file", s, a, c>>
Metadata(c) == <<"metadata", c>>
Rows(s, a, interval) == <<s, a, interval>>
Nothing == [files |-> {}, position |-> 0, prepared |-> {}]

Max(set) == CHOOSE x \in set : \A y \in set : y <= x
Newest(files) == {f \in files : \A g \in files : g[4] <= f[4]}

Objects(completed) ==
  IF completed = None THEN {}
  ELSE {Metadata(completed.id)} \cup UNION {completed.states[s].files : s \in Subtasks}

InOffice == decided.epoch
View(l) == IF leaders[l].stale = None THEN decided ELSE leaders[l].stale
Elected == {l \in Leaders : leaders[l] # None}
NewLeader == [stale |-> None, acks |-> [s \in Subtasks |-> None], proposed |-> None]

Restored(follows, s, from) ==
  LET state == IF from = None THEN Nothing ELSE from.states[s] IN
  [follows |-> follows, seen |-> IF from = None THEN 0 ELSE from.id,
   committed |-> IF from = None THEN 0 ELSE from.id,
   position |-> state.position, files |-> state.files,
   prepared |-> {},   \* of <<checkpoint, interval>>
   held |-> None]

Init ==
  /\ decided = [epoch |-> 1, status |-> "running", attempt |-> 1, lastId |-> 0, pending |-> None, retained |-> None,
                retired |-> {}, final |-> 0]
  /\ leaders = [l \in Leaders |-> IF l = 1 THEN NewLeader ELSE None]
  /\ tasks = [s \in Subtasks |-> [a \in Attempts |-> IF a = 1 THEN Restored(1, s, None) ELSE None]]
  /\ storage = {} /\ visible = {} /\ covered = {} /\ breaches = {}

-----------------------------------------------------------------------------
(* What a leader may propose, as far as it knows: coordinator/src/core/plan/. *)

AllCommitted(l) ==
  \/ Defect = "EndBeforeCommitted"
  \/ \A s \in Subtasks : LET task == tasks[s][View(l).attempt] IN
       task # None /\ task.follows = l /\ task.committed >= View(l).final

Decisions(l) ==
  LET view == View(l) a == view.attempt acks == leaders[l].acks IN
  CASE view.status = "running" ->
         {[kind |-> "fail", attempt |-> x] : x \in IF a + 1 \in Attempts THEN {a} ELSE {}}
         \cup (IF view.pending # None
               THEN {[kind |-> "abort", id |-> view.pending.id]}
                    \cup IF \A s \in Subtasks : acks[s] # None
                         THEN {[kind |-> "complete", id |-> view.pending.id, attempt |-> a, states |-> acks]}
                         ELSE {}
               ELSE IF view.final # 0
               THEN IF AllCommitted(l) THEN {[kind |-> "end", attempt |-> a, status |-> "finished"]} ELSE {}
               ELSE {[kind |-> "begin", id |-> id, attempt |-> a, final |-> final] :
                       id \in {view.lastId + 1} \cap Checkpoints, final \in BOOLEAN})
    [] view.status = "restarting" -> {[kind |-> "start", attempt |-> a + 1]}
    [] view.status = "cancelling" -> {[kind |-> "end", attempt |-> a, status |-> "canceled"]}
    [] OTHER -> {}

(* A decision comes out of the log: coordinator/src/core/apply/. It is refused if it does not fit. *)

Completed(d) == [id |-> d.id, states |-> d.states]

After(d) ==
  LET running == decided.status = "running" present == running /\ "attempt" \in DOMAIN d /\ d.attempt = decided.attempt IN
  CASE d.kind = "begin" /\ present /\ decided.final = 0 /\ decided.pending = None /\ d.id > decided.lastId ->
         [decided EXCEPT !.lastId = d.id, !.pending = [id |-> d.id, attempt |-> d.attempt, final |-> d.final]]
    [] d.kind = "complete" /\ present /\ decided.pending # None /\ decided.pending.id = d.id ->
         [decided EXCEPT !.retained = Completed(d), !.pending = None,
            !.retired = @ \cup (Objects(decided.retained) \ Objects(Completed(d))),
            !.final = IF decided.pending.final THEN d.id ELSE @]
    [] d.kind = "abort" /\ decided.pending # None /\ decided.pending.id = d.id -> [decided EXCEPT !.pending = None]
    [] d.kind = "fail" /\ present -> [decided EXCEPT !.status = "restarting", !.pending = None]
    [] d.kind = "start" /\ decided.status = "restarting"
                        /\ d.attempt = decided.attempt + 1 ->
         [decided EXCEPT !.status = "running", !.attempt = d.attempt, !.pending = None]
    [] d.kind = "end" /\ d.attempt = decided.attempt
         /\ \/ d.status = "finished" /\ running /\ decided.final # 0
            \/ d.status = "canceled" /\ decided.status = "cancelling" ->
         [decided EXCEPT !.status = d.status, !.pending = None, !.retained = None,
            !.retired = @ \cup Objects(decided.retained)]
    [] OTHER -> decided

IsTerminal(job) == job.status \in {"finished", "canceled"}

(* By whom: an epoch that is not in office is refused. *)
Applied(epoch, d) ==
  LET accepted == epoch = InOffice \/ Defect = "NoEpochCheck"
      after == IF accepted THEN After(d) ELSE decided IN
  /\ decided' = after
  /\ covered' = IF d.kind = "complete" /\ after # decided
                THEN covered \cup UNION {d.states[s].prepared : s \in Subtasks} ELSE covered
  /\ breaches' = breaches \cup (IF after # decided /\ epoch # InOffice THEN {"out of office"} ELSE {})
                          \cup (IF after # decided /\ IsTerminal(decided) THEN {"revived"} ELSE {})
                          \cup (IF d.kind = "end" /\ after.status = "finished" /\ after # decided
                                   /\ \E s \in Subtasks : \E i \in 0..(decided.retained.states[s].position - 1) :
                                        Cardinality({a \in Attempts : Rows(s, a, i) \in visible}) # 1
                                THEN {"finished without its output"} ELSE {})

\* Acks for a checkpoint that is not pending any more are dropped.
AcksAfter(l) == IF decided'.pending = decided.pending THEN leaders[l].acks ELSE NewLeader.acks

-----------------------------------------------------------------------------

Elect ==
  /\ InOffice + 1 \in Leaders
  /\ decided' = [decided EXCEPT !.epoch = @ + 1]
  /\ leaders' = [leaders EXCEPT ![InOffice] = [@ EXCEPT !.stale = decided, !.proposed = None],
                                ![InOffice + 1] = NewLeader]
  /\ UNCHANGED <<tasks, storage, visible, covered, breaches>>

\* Metadata is written before completion is proposed.
WithMetadata(d) == IF d.kind = "complete" THEN storage \cup {Metadata(d.id)} ELSE storage

Propose ==
  /\ leaders[InOffice].proposed = None
  /\ \E d \in Decisions(InOffice) :
       /\ leaders' = [leaders EXCEPT ![InOffice].proposed = d]
       /\ storage' = WithMetadata(d)
  /\ UNCHANGED <<decided, tasks, visible, covered, breaches>>

Apply ==
  /\ leaders[InOffice].proposed # None
  /\ Applied(InOffice, leaders[InOffice].proposed)
  /\ leaders' = [leaders EXCEPT ![InOffice] = [@ EXCEPT !.proposed = None, !.acks = AcksAfter(InOffice)]]
  /\ UNCHANGED <<tasks, storage, visible>>

Drop ==
  /\ leaders[InOffice].proposed # None
  /\ leaders' = [leaders EXCEPT ![InOffice].proposed = None]
  /\ UNCHANGED <<decided, tasks, storage, visible, covered, breaches>>

\* A deposed leader decides from what it saw last.
ApplyLate ==
  \E l \in Elected : leaders[l].stale # None /\ \E d \in Decisions(l) :
    /\ Applied(l, d)
    /\ leaders' = [leaders EXCEPT ![InOffice].acks = AcksAfter(InOffice)]
    /\ storage' = WithMetadata(d)
    /\ UNCHANGED <<tasks, visible>>

Cancel ==
  /\ decided.status \in {"running", "restarting"}
  /\ decided' = [decided EXCEPT !.status = "cancelling", !.pending = None]
  /\ leaders' = [leaders EXCEPT ![InOffice].acks = NewLeader.acks]
  /\ UNCHANGED <<tasks, storage, visible, covered, breaches>>

Follow ==
  \E l \in Elected, s \in Subtasks, a \in Attempts :
    /\ tasks[s][a] # None /\ tasks[s][a].follows < l
    /\ tasks' = [tasks EXCEPT ![s][a].follows = l]
    /\ UNCHANGED <<decided, leaders, storage, visible, covered, breaches>>

\* A task begins, and makes visible what its checkpoint has prepared.
Deploy ==
  \E l \in Elected, s \in Subtasks :
    LET view == View(l) a == view.attempt IN
    /\ view.status = "running" /\ tasks[s][a] = None
    /\ tasks' = [tasks EXCEPT ![s][a] = Restored(l, s, view.retained)]
    /\ visible' = IF view.retained = None \/ Defect = "RestoreWithoutCommit"
                  THEN visible ELSE visible \cup view.retained.states[s].prepared
    /\ UNCHANGED <<decided, leaders, storage, covered, breaches>>

\* A task takes part: it takes its snapshot, uploads it, and holds its ack. Of the files so far it needs the newest.
Trigger ==
  \E l \in Elected, s \in Subtasks, a \in Attempts :
    LET pending == View(l).pending task == tasks[s][a] IN
    /\ pending # None /\ task # None
    /\ task.follows = l /\ task.seen < pending.id
    /\ pending.attempt = a \/ Defect = "AckOfOlderAttempt"
    /\ LET files == Newest(task.files) \cup {File(s, a, pending.id)}
           prepared == task.prepared \cup {<<pending.id, task.position>>}
           state == [files |-> files, position |-> task.position + 1,
                     prepared |-> {Rows(s, a, p[2]) : p \in prepared}] IN
       tasks' = [tasks EXCEPT ![s][a] = [@ EXCEPT !.seen = pending.id, !.files = files, !.prepared = prepared,
                   !.position = @ + 1, !.held = [checkpoint |-> pending.id, state |-> state]]]
    /\ storage' = storage \cup {File(s, a, pending.id)}
    /\ UNCHANGED <<decided, leaders, visible, covered, breaches>>

Acknowledge ==
  \E l \in Elected, s \in Subtasks, a \in Attempts :
    LET pending == View(l).pending task == tasks[s][a] IN
    /\ pending # None /\ task # None
    /\ task.follows = l /\ task.held # None /\ leaders[l].acks[s] = None
    /\ task.held.checkpoint = pending.id
    /\ pending.attempt = a \/ Defect = "AckOfOlderAttempt"
    /\ leaders' = [leaders EXCEPT ![l].acks[s] = task.held.state]
    /\ UNCHANGED <<decided, tasks, storage, visible, covered, breaches>>

\* Told of a completion that is decided; a sink makes visible what it prepared until then.
Announce ==
  \E l \in Elected, s \in Subtasks :
    LET view == View(l) a == view.attempt task == tasks[s][a] proposed == leaders[l].proposed IN
    \E id \in (IF view.retained # None THEN {view.retained.id} ELSE {})
              \cup (IF Defect = "CommitBeforeApplied" /\ proposed # None /\ proposed.kind = "complete"
                    THEN {proposed.id} ELSE {}) :
      /\ task # None /\ task.follows = l /\ task.committed < id
      /\ LET due == {p \in task.prepared : p[1] <= id} IN
         /\ visible' = visible \cup {Rows(s, a, p[2]) : p \in due}
         /\ tasks' = [tasks EXCEPT ![s][a] = [@ EXCEPT !.committed = id, !.prepared = @ \ due,
                        !.held = IF @ # None /\ @.checkpoint <= id THEN None ELSE @]]
      /\ UNCHANGED <<decided, leaders, storage, covered, breaches>>

\* What is or may yet become part of a retained checkpoint.
Live ==
  Objects(decided.retained) \cup
  IF IsTerminal(decided) THEN {}
  ELSE UNION {LET task == tasks[s][decided.attempt] IN IF task = None THEN {} ELSE Newest(task.files) : s \in Subtasks}

Delete ==
  \E l \in Elected :
    LET view == View(l) proposed == leaders[l].proposed
        early == IF Defect = "DeleteBeforeRetired" /\ proposed # None /\ proposed.kind = "complete"
                 THEN Objects(view.retained) \ Objects(Completed(proposed)) ELSE {}
        stale == IF Defect = "DeposedLeaderDeletes" /\ leaders[l].stale # None
                 THEN storage \ Objects(view.retained) ELSE {}
        deleted == (view.retired \cup early \cup stale) \cap storage IN
    /\ deleted # {}
    /\ storage' = storage \ deleted
    /\ breaches' = IF leaders[l].stale # None /\ deleted \cap Live # {} THEN breaches \cup {"stale delete"} ELSE breaches
    /\ UNCHANGED <<decided, leaders, tasks, visible, covered>>

Forget ==
  /\ ~ decided.retired \subseteq storage
  /\ decided' = [decided EXCEPT !.retired = @ \cap storage]
  /\ UNCHANGED <<leaders, tasks, storage, visible, covered, breaches>>

Next ==
  \/ Elect \/ Propose \/ Apply \/ Drop \/ ApplyLate \/ Cancel \/ Follow \/ Deploy \/ Trigger \/ Acknowledge \/ Announce
  \/ Delete \/ Forget

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------

FilesExist == Objects(decided.retained) \subseteq storage

Times(rows, s, i) == Cardinality({a \in Attempts : Rows(s, a, i) \in rows})

VisibleOnce == \A s \in Subtasks : \A i \in 0..Max(Checkpoints) : Times(visible, s, i) <= 1

VisibleIsCovered == visible \subseteq covered

ExactlyOnce ==
  decided.retained # None =>
    \A s \in Subtasks : LET state == decided.retained.states[s] IN
      \A i \in 0..Max(Checkpoints) : i < state.position => Times(visible \cup state.prepared, s, i) = 1

NoBreach == breaches = {}

Symmetry == {p \in [Subtasks -> Subtasks] : \A s, t \in Subtasks : p[s] = p[t] => s = t}
=============================================================================
