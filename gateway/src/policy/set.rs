//! A set of policies: read and checked as a whole, sliced by scope, asked one action at a time.
//!
//! Cedar's authorizer evaluates every policy of a set. A policy whose scope (principal, action, resource) does not
//! match is false before its conditions are looked at, so it is sound to pass over it; the index below finds the
//! others. What is left is evaluated by Cedar, each policy by itself, and combined by Cedar's own rule with one
//! change: an error refuses. A test holds this against Cedar's authorizer over random sets.

mod reads;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Effect, Entities, EntityUid, Policy, PolicyId,
    PrincipalConstraint, Request, ResourceConstraint, ValidationMode, ValidationWarning,
};
use gatebook_wire::action::{Action, Verb};
use gatebook_wire::protocol::Meaning;
use miette::Diagnostic;

use super::folder::{self, PolicyFile};
use super::mistake::{Mistake, line_and_column};
use super::obligation::{self, Approval, Glass, Obligation};
use super::question::{self, Asked, Asker, Unaskable, VOCABULARY};
use super::{AdminAction, Decision, PolicyRef, Standing, Verdict, known};

/// The most policies in a set.
pub const POLICIES_MAX: usize = 10_000;
/// The most errors that one decision keeps; more are counted.
const ERRORS_MAX: usize = 8;

/// A checked, compiled set of policies. It never changes; a new text makes a new set.
pub struct PolicySet {
    files: Vec<PolicyFile>,
    hash: blake3::Hash,
    warnings: Vec<Mistake>,
    rules: Vec<Rule>,
    index: [Slice; Verb::ALL.len()],
    concerns_people: bool,
}

/// The rules of one verb by the resource that their scope names, each list in the order of the set.
#[derive(Default)]
struct Slice {
    anywhere: Vec<usize>,
    below: HashMap<EntityUid, Vec<usize>>,
}

/// One policy.
pub(super) struct Rule {
    pub(super) place: PolicyRef,
    pub(super) policy: Policy,
    forbids: bool,
    /// Whether it says more than its scope. One that does not needs no evaluation.
    conditional: bool,
    principal: PrincipalConstraint,
    resource: ResourceConstraint,
    obligations: Vec<Obligation>,
    /// The policy alone, as the authorizer takes it.
    alone: cedar_policy::PolicySet,
}

impl PolicySet {
    /// Reads and checks a folder of `.cedar` files.
    ///
    /// An empty folder is a set that refuses everything; it loads with a warning.
    ///
    /// # Errors
    /// All mistakes of all files together, in the order of files and lines.
    pub fn load(dir: &Path) -> Result<PolicySet, Vec<Mistake>> {
        let folder = folder::read(dir);
        PolicySet::compile(folder.files, folder.mistakes, folder.warnings)
    }

    /// Checks policies that are at hand: what the ledger kept of a set, for example.
    ///
    /// # Errors
    /// All mistakes of all files together, in the order of files and lines.
    pub fn from_files(files: Vec<PolicyFile>) -> Result<PolicySet, Vec<Mistake>> {
        PolicySet::compile(files, Vec::new(), Vec::new())
    }

    fn compile(
        mut files: Vec<PolicyFile>,
        mut mistakes: Vec<Mistake>,
        mut warnings: Vec<Mistake>,
    ) -> Result<PolicySet, Vec<Mistake>> {
        files.sort_by(|left, right| left.name.cmp(&right.name));
        let mut rules = Vec::new();
        for file in &files {
            compile_file(file, &mut rules, &mut mistakes, &mut warnings);
        }
        same_ids(&rules, &mut mistakes);
        if rules.len() > POLICIES_MAX {
            mistakes.push(Mistake::whole("policies", format!("more than {POLICIES_MAX} policies")));
        }
        if !mistakes.is_empty() {
            mistakes.sort();
            mistakes.dedup();
            return Err(mistakes);
        }
        if rules.is_empty() {
            warnings.push(Mistake::whole("policies", "there is no policy, so everything is refused"));
        }
        warnings.sort();
        let concerns_people =
            rules.iter().flat_map(|rule| &rule.obligations).any(Obligation::concerns_people);
        Ok(PolicySet { hash: hash(&files), index: index(&rules), files, warnings, rules, concerns_people })
    }

    /// What the operator should know of a set that loads all the same.
    #[must_use]
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }

    /// Compares the names in policies with those that the configuration has.
    #[must_use]
    pub fn check_against(&self, known: &known::Known) -> Vec<Mistake> {
        let mut mistakes: Vec<Mistake> =
            self.rules.iter().flat_map(|rule| known.mistakes(rule, self.text(&rule.place.file))).collect();
        mistakes.sort();
        mistakes.dedup();
        mistakes
    }

    fn text(&self, name: &str) -> &str {
        self.files.iter().find(|file| &*file.name == name).map_or("", |file| &file.text)
    }

    /// Names the set: BLAKE3 over the schema and the names and texts of its files. `docs/policy.md` has the bytes.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        self.hash.as_bytes()
    }

    /// The files' names and texts, sorted by name: with [`super::SCHEMA`], all that is needed to decide again.
    #[must_use]
    pub fn files(&self) -> &[PolicyFile] {
        &self.files
    }

    /// How many policies it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether any policy has a person do something before a command runs: approve it, or say why.
    #[must_use]
    pub fn concerns_people(&self) -> bool {
        self.concerns_people
    }

    /// Whether it holds no policy, and so refuses everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any policy limits what is shown in a day.
    #[must_use]
    pub fn limits_days(&self) -> bool {
        let obligations = self.rules.iter().flat_map(|rule| &rule.obligations);
        obligations.into_iter().any(|found| {
            matches!(found, Obligation::AtMost(obligation::Limit::DayRows | obligation::Limit::DayBytes, _))
        })
    }

    /// Decides a command: every action of it must be permitted to every link of the chain, in every role as which it may run, and within every scope.
    ///
    /// A meaning without actions asks for nothing that policy guards and is permitted: that the session exists was
    /// decided at login. An empty chain is refused.
    #[must_use]
    pub fn decide(&self, standing: &Standing, meaning: &Meaning) -> Decision {
        let mut findings = Findings::default();
        if standing.chain.is_empty() {
            findings.error("nobody asks: the chain is empty".into());
        }
        let askers: Vec<Asker<'_>> = standing.chain.iter().map(Asker::new).collect();
        let roles = question::roles(standing, meaning);
        let mut contexts: Vec<Later> = roles.iter().map(|_| Later::default()).collect();
        let mut refused = Vec::new();
        for action in &meaning.actions {
            let asked = Asked::new(&standing.resource, &action.object);
            let mut permitted = !askers.is_empty() && !roles.is_empty();
            for asker in &askers {
                for (role, context) in roles.iter().zip(&mut contexts) {
                    let mut question = Question { asker, action, asked: &asked, put: None };
                    let mut make = || context.get(|| question::context(standing, *role, meaning));
                    permitted &= self.decide_one(&mut question, &mut make, &mut findings);
                }
            }
            for scope in standing.scopes.iter().filter(|scope| !scope.allows(&standing.resource, action)) {
                permitted = false;
                findings.beyond = true;
                findings.error(format!(
                    "delegation {} does not reach as far as {} {}",
                    scope.delegation(),
                    action.verb.name(),
                    action.object
                ));
            }
            if !permitted {
                refused.push(action.clone());
            }
        }
        if let Some(rows_max) = standing.rows_max().and_then(std::num::NonZeroU64::new) {
            findings.obligations.push(Obligation::AtMost(obligation::Limit::Rows, rows_max));
        }
        findings.into_decision(refused.is_empty(), refused)
    }

    /// Decides what is no command, each question of which must be answered with yes. Every rule is asked, since such questions
    /// are few.
    pub(super) fn decide_all(&self, questions: &[Result<(Request, Entities), Unaskable>]) -> Decision {
        let mut findings = Findings::default();
        let mut all = !questions.is_empty();
        for question in questions {
            let (request, entities) = match question {
                Ok(question) => question,
                Err(error) => {
                    findings.error(error.to_string());
                    continue;
                }
            };
            let (mut permitted, mut forbidden) = (false, false);
            for rule in &self.rules {
                let response = Authorizer::new().is_authorized(request, &rule.alone, entities);
                if let Some(error) = response.diagnostics().errors().next() {
                    findings.error(format!("{}: {}", rule.place, plain(&error.to_string())));
                } else if response.diagnostics().reason().next().is_none() {
                } else if rule.forbids {
                    forbidden = true;
                    findings.forbids.push(rule.place.clone());
                } else {
                    permitted = true;
                    findings.permits.push(rule.place.clone());
                }
            }
            all &= permitted && !forbidden;
        }
        findings.into_decision(all, Vec::new())
    }

    /// Decides one action for one link of the chain.
    fn decide_one(
        &self,
        question: &mut Question<'_>,
        context: &mut dyn FnMut() -> Result<Context, String>,
        findings: &mut Findings,
    ) -> bool {
        let action = question.action;
        if !question::is_known(action) {
            findings.error(format!(
                "the schema has no {} on such an object: {}",
                action.verb.name(),
                action.object
            ));
            return false;
        }
        let (mut permits, mut forbidden, mut erred) = (Vec::new(), false, false);
        for rule in self.matching(question) {
            match rule.holds(question, context) {
                Ok(false) => {}
                Ok(true) if rule.forbids => {
                    forbidden = true;
                    findings.forbids.push(rule.place.clone());
                }
                Ok(true) => {
                    permits.push(&rule.obligations[..]);
                    findings.permits.push(rule.place.clone());
                    findings.obligations.extend(rule.obligations.iter().cloned());
                }
                Err(message) => {
                    erred = true;
                    let subject = question.asker.subject;
                    findings.error(format!(
                        "{}: cannot tell whether {} may {} {}: {message}",
                        rule.place,
                        subject.id(),
                        action.verb.name(),
                        action.object
                    ));
                }
            }
        }
        let permitted = !permits.is_empty();
        findings.glass = findings.glass.and(Glass::of(permits.iter().copied()));
        if let Some(demand) = Approval::of(permits.into_iter().flatten()) {
            findings.approval = Some(match findings.approval.take() {
                Some(others) => others.and(demand),
                None => demand,
            });
        }
        permitted && !forbidden && !erred
    }

    /// The rules whose scope matches.
    fn matching<'s>(&'s self, question: &Question<'s>) -> impl Iterator<Item = &'s Rule> + use<'s> {
        let slice = &self.index[question.action.verb as usize];
        let (asker, asked) = (question.asker, question.asked);
        let below = asked.path.iter().filter_map(|place| slice.below.get(place)).flatten();
        let chosen = slice.anywhere.iter().chain(below).map(|&place| &self.rules[place]);
        chosen.filter(move |rule| rule.has_principal(asker) && rule.has_resource(asked))
    }
}

/// One action of one link of the chain, and Cedar's form of it once that is needed.
struct Question<'a> {
    asker: &'a Asker<'a>,
    action: &'a Action,
    asked: &'a Asked<'a>,
    put: Option<Result<(Request, Entities), String>>,
}

/// A value made at most once, when it is first needed.
#[derive(Default)]
struct Later(Option<Result<Context, String>>);

impl Later {
    fn get(&mut self, make: impl FnOnce() -> Result<Context, Unaskable>) -> Result<Context, String> {
        self.0.get_or_insert_with(|| make().map_err(|error| error.to_string())).clone()
    }
}

impl Rule {
    fn has_principal(&self, asker: &Asker<'_>) -> bool {
        let is_in = |place: &EntityUid| *place == asker.uid || asker.groups.contains(place);
        match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => *uid == asker.uid,
            PrincipalConstraint::In(place) => is_in(place),
            PrincipalConstraint::Is(name) => name == asker.uid.type_name(),
            PrincipalConstraint::IsIn(name, place) => name == asker.uid.type_name() && is_in(place),
        }
    }

    fn has_resource(&self, asked: &Asked<'_>) -> bool {
        let object = &asked.path[0];
        match &self.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(uid) => uid == object,
            ResourceConstraint::In(place) => asked.path.contains(place),
            ResourceConstraint::Is(name) => name == object.type_name(),
            ResourceConstraint::IsIn(name, place) => name == object.type_name() && asked.path.contains(place),
        }
    }

    /// Whether the policy is satisfied; its scope is known to match.
    fn holds(
        &self,
        question: &mut Question<'_>,
        context: &mut dyn FnMut() -> Result<Context, String>,
    ) -> Result<bool, String> {
        if !self.conditional {
            return Ok(true);
        }
        let (asker, verb, asked) = (question.asker, question.action.verb, question.asked);
        let put = question.put.get_or_insert_with(|| {
            question::ask(asker, verb, asked, context()?).map_err(|error| error.to_string())
        });
        let (request, entities) = put.as_ref().map_err(String::clone)?;
        let response = Authorizer::new().is_authorized(request, &self.alone, entities);
        match response.diagnostics().errors().next() {
            Some(error) => Err(plain(&error.to_string())),
            None => Ok(response.diagnostics().reason().next().is_some()),
        }
    }
}

/// What was found on the way to a decision.
struct Findings {
    permits: Vec<PolicyRef>,
    forbids: Vec<PolicyRef>,
    obligations: Vec<Obligation>,
    glass: Glass,
    approval: Option<Approval>,
    errors: Vec<String>,
    further_errors: usize,
    beyond: bool,
}

impl Default for Findings {
    fn default() -> Findings {
        Findings {
            permits: Vec::new(),
            forbids: Vec::new(),
            obligations: Vec::new(),
            glass: Glass::NONE,
            approval: None,
            errors: Vec::new(),
            further_errors: 0,
            beyond: false,
        }
    }
}

impl Findings {
    fn error(&mut self, message: String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(message);
        } else {
            self.further_errors += 1;
        }
    }

    fn into_decision(mut self, permitted: bool, refused: Vec<Action>) -> Decision {
        let verdict = if permitted && self.errors.is_empty() { Verdict::Permit } else { Verdict::Refuse };
        let (mut determining, obligations) = match verdict {
            Verdict::Permit => (self.permits, obligation::combine(self.obligations)),
            Verdict::Refuse => (self.forbids, Vec::new()),
        };
        let approval = self.approval.filter(|_| verdict == Verdict::Permit);
        determining.sort();
        determining.dedup();
        if self.further_errors > 0 {
            self.errors.push(format!("and {} further errors", self.further_errors));
        }
        let (glass, beyond) = (self.glass, self.beyond);
        Decision { verdict, determining, obligations, glass, approval, refused, errors: self.errors, beyond }
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("hash", &self.hash.to_hex())
            .field("files", &self.files.len())
            .field("policies", &self.rules.len())
            .finish_non_exhaustive()
    }
}

fn compile_file(
    file: &PolicyFile,
    rules: &mut Vec<Rule>,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) {
    let parsed = match cedar_policy::PolicySet::from_str(&file.text) {
        Ok(parsed) => parsed,
        Err(errors) => {
            mistakes.extend(errors.iter().map(|error| told(file, 0, error)));
            return;
        }
    };
    for template in parsed.templates() {
        let offset = template.as_ref().loc().map_or(0, |loc| loc.start());
        let message =
            "a template with slots (?principal, ?resource) is never linked here: write the policy out";
        mistakes.push(Mistake::at(&file.name, &file.text, offset, message));
    }
    let start = |id: &PolicyId| parsed.policy(id).map_or(0, start);
    let checked = VOCABULARY.validator.validate(&parsed, ValidationMode::Strict);
    let told_of = checked.validation_errors().map(|error| told(file, start(error.policy_id()), error));
    let mut errors: Vec<Mistake> = told_of.collect();
    // Cedar says the same of each action that a policy applies to.
    errors.sort();
    errors.dedup_by_key(|mistake| (mistake.line, mistake.column));
    mistakes.extend(errors);
    // A policy is told one thing: a name that does not exist makes it impossible as well, and so does a scope.
    let mut told_already: HashSet<&PolicyId> =
        checked.validation_errors().map(|error| error.policy_id()).collect();
    let (scopes, others): (Vec<_>, Vec<_>) = checked
        .validation_warnings()
        .partition(|warning| matches!(warning, ValidationWarning::InvalidActionApplication(_)));
    for warning in scopes.into_iter().chain(others) {
        let start = start(warning.policy_id());
        // A rule that can never apply would be believed to protect.
        match warning {
            ValidationWarning::InvalidActionApplication(_) | ValidationWarning::ImpossiblePolicy(_)
                if !told_already.insert(warning.policy_id()) => {}
            ValidationWarning::InvalidActionApplication(_) => {
                let message =
                    "can never apply: no action of its scope is done by such a principal to such a resource";
                mistakes.push(Mistake::at(&file.name, &file.text, start, message));
            }
            ValidationWarning::ImpossiblePolicy(_) => {
                let message = "can never apply: its conditions are never true";
                mistakes.push(Mistake::at(&file.name, &file.text, start, message));
            }
            ValidationWarning::BidiCharsInString(_) | ValidationWarning::BidiCharsInIdentifier(_) => {
                mistakes.push(told(file, start, warning));
            }
            _ => warnings.push(told(file, start, warning)),
        }
    }
    let mut policies: Vec<&Policy> = parsed.policies().filter(|policy| policy.is_static()).collect();
    policies.sort_by_key(|policy| self::start(policy));
    for policy in policies {
        compile_policy(file, policy, rules, mistakes, warnings);
    }
}

/// The byte that a policy begins at.
fn start(policy: &Policy) -> usize {
    policy.as_ref().loc().map_or(0, |loc| loc.start())
}

fn compile_policy(
    file: &PolicyFile,
    policy: &Policy,
    rules: &mut Vec<Rule>,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) {
    let at = |offset, message: String| Mistake::at(&file.name, &file.text, offset, message);
    let places: BTreeMap<String, usize> = policy
        .as_ref()
        .annotations()
        .map(|(key, value)| (key.to_string(), value.loc.as_ref().map_or(start(policy), |loc| loc.start())))
        .collect();
    let forbids = policy.effect() == Effect::Forbid;
    let read = obligation::read(&policy.annotations().collect(), forbids);
    let (annotations, faults) = match read {
        Ok(annotations) => (annotations, Vec::new()),
        Err(faults) => (obligation::Annotations::default(), faults),
    };
    for (key, message) in faults {
        mistakes.push(at(places.get(&key).copied().unwrap_or(start(policy)), message));
    }
    mistakes.extend(known::malformed(policy, file));

    let verbs = verbs(policy);
    let shows_rows = |verb: &Verb| {
        matches!(verb, Verb::Select | Verb::Insert | Verb::Update | Verb::Delete | Verb::Call | Verb::Opaque)
    };
    if !verbs.iter().any(shows_rows) {
        for found in &annotations.obligations {
            if let Obligation::AtMost(limit, _) = found
                && limit.is_of_rows()
            {
                let offset = places.get(limit.key()).copied().unwrap_or(start(policy));
                let message = format!("@{}: none of the actions of this policy shows rows", limit.key());
                mistakes.push(at(offset, message));
            }
        }
    }
    if (verbs.contains(&Verb::Login) || concerns_gateway(policy))
        && let Some(asks) = annotations.obligations.iter().find(|found| found.concerns_people())
    {
        let key = asks.key();
        let offset = places.get(key).copied().unwrap_or(start(policy));
        let message = format!(
            "@{key}: a login waits for nobody, and neither does what is done to the gateway: name other actions"
        );
        mistakes.push(at(offset, message));
    }
    if !forbids && matches!(policy.action_constraint(), ActionConstraint::Any) {
        let message =
            "permits every action, `opaque`, `administer` and `login` among them: better name the actions";
        warnings.push(at(start(policy), message.into()));
    }

    let (line, _) = line_and_column(&file.text, start(policy));
    let alone = match cedar_policy::PolicySet::from_policies([policy.clone()]) {
        Ok(alone) => alone,
        Err(error) => {
            mistakes.push(at(start(policy), error.to_string()));
            return;
        }
    };
    rules.push(Rule {
        place: PolicyRef { file: Arc::clone(&file.name), line, id: annotations.id },
        forbids,
        conditional: policy.has_non_scope_constraint(),
        principal: policy.principal_constraint(),
        resource: policy.resource_constraint(),
        obligations: annotations.obligations,
        alone,
        policy: policy.clone(),
    });
}

/// Whether an action of its scope is one on the gateway itself.
fn concerns_gateway(policy: &Policy) -> bool {
    let is_admin =
        |uid: &EntityUid| AdminAction::ALL.iter().any(|action| uid.id().unescaped() == action.name());
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => is_admin(&uid),
        ActionConstraint::In(places) => places.iter().any(is_admin),
    }
}

/// A Cedar error or warning as a mistake: at its own place where it has one, with Cedar's own advice.
fn told(file: &PolicyFile, start: usize, error: &dyn Diagnostic) -> Mistake {
    let label = error.labels().and_then(|mut labels| labels.next());
    let offset = label.as_ref().map_or(start, miette::LabeledSpan::offset);
    let mut message = plain(&error.to_string());
    let label = label.as_ref().and_then(|label| label.label()).map(str::to_owned);
    let help = error.help().map(|help| help.to_string());
    for more in label.into_iter().chain(help) {
        message.push_str(" (");
        message.push_str(&more);
        message.push(')');
    }
    Mistake::at(&file.name, &file.text, offset, message)
}

/// Cedar's message without the policy's number, which says nothing to anybody, and without the action that it
/// happened to meet first.
fn plain(message: &str) -> String {
    let after = |prefix: &str, end: &str| {
        message.strip_prefix(prefix).and_then(|rest| rest.split_once(end)).map(|(_, rest)| rest)
    };
    let message = after("for policy `", "`, ")
        .or(after("for policy `", "`: "))
        .or(after("error while evaluating policy `", "`: "))
        .unwrap_or(message);
    let Some((before, rest)) = message.split_once(" in context for Action::\"") else {
        return message.to_owned();
    };
    let (_, rest) = rest.split_once('"').unwrap_or_default();
    format!("{before} in context{rest}")
}

fn same_ids(rules: &[Rule], mistakes: &mut Vec<Mistake>) {
    let mut seen: HashMap<&str, &PolicyRef> = HashMap::new();
    for place in rules.iter().map(|rule| &rule.place) {
        let Some(id) = place.id.as_deref() else { continue };
        if let Some(first) = seen.get(id) {
            let message = format!("@id: {id:?} is already the name of {first}");
            let file = Arc::clone(&place.file);
            mistakes.push(Mistake { file, line: place.line, column: 1, message });
        } else {
            seen.insert(id, place);
        }
    }
}

/// The verbs that a policy's scope names.
fn verbs(policy: &Policy) -> Vec<Verb> {
    let is_in = |verb: Verb, place: &EntityUid| {
        place == VOCABULARY.action(verb) || VOCABULARY.action_group(verb).as_ref() == Some(place)
    };
    let constraint = policy.action_constraint();
    let matches = |verb: &Verb| match &constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == VOCABULARY.action(*verb),
        ActionConstraint::In(places) => places.iter().any(|place| is_in(*verb, place)),
    };
    Verb::ALL.into_iter().filter(matches).collect()
}

fn index(rules: &[Rule]) -> [Slice; Verb::ALL.len()] {
    let mut index: [Slice; Verb::ALL.len()] = Default::default();
    for (place, rule) in rules.iter().enumerate() {
        for verb in verbs(&rule.policy) {
            let slice = &mut index[verb as usize];
            match &rule.resource {
                ResourceConstraint::Any | ResourceConstraint::Is(_) => slice.anywhere.push(place),
                ResourceConstraint::Eq(uid)
                | ResourceConstraint::In(uid)
                | ResourceConstraint::IsIn(_, uid) => {
                    slice.below.entry(uid.clone()).or_default().push(place);
                }
            }
        }
    }
    index
}

/// BLAKE3 in its key derivation mode, so that no other use of the same bytes has the same hash. Each text is
/// preceded by its length as a 64-bit little-endian number: the schema, then name and text of each file.
fn hash(files: &[PolicyFile]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("gatebook policy set v1");
    let texts = files.iter().flat_map(|file| [&*file.name, &*file.text]);
    for text in std::iter::once(super::SCHEMA).chain(texts) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize()
}
