//! The simulator for C: whole clusters with a program's own machine, on the thread of the call.

use std::ffi::c_void;
use std::sync::Arc;

use parking_lot::Mutex;
use raftz_core::machine::{CountingMachine, StateMachine};
use raftz_core::node;
use raftz_core::sim::choice::Chooser;
use raftz_core::sim::{Plan, Report, Simulation, text};

use crate::bytes::raftz_slice;
use crate::error::{Failure, raftz_error};
use crate::guard::{self, Call, Out, borrow, borrow_mut, call, free, invalid, null, value};
use crate::machine::{Table, raftz_machine, raftz_sink};
use crate::sized::{self, Place, Sized};
use crate::status::{
    RAFTZ_BAD_UTF8, RAFTZ_CALLBACK_FAILED, RAFTZ_IN_CALLBACK, RAFTZ_MACHINE, RAFTZ_OK,
    RAFTZ_TOO_LARGE, raftz_status, shown,
};

/// \brief The largest command that a simulated cluster takes, in bytes.
pub const RAFTZ_SIM_COMMAND_BYTES_MAX: usize = 4096;

/// The longest that faults may go on in one run.
const DURATION_US_MAX: u64 = 3_600_000_000;
/// The longest command that is drawn where the program draws none.
const DRAWN_BYTES_MAX: u64 = 32;

/// \brief Answers the questions of a workload: all that is random in a command comes from here, so that a seed
/// repeats it.
pub struct raftz_sim_chooser {
    /// Lives as long as the call of `workload` that it is made for.
    chooser: *mut Chooser,
}

/// \brief How a cluster is simulated. All zero, but for the size, is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_sim_opts {
    /// \brief Set it to `sizeof(raftz_sim_opts)`.
    pub size: usize,
    /// \brief How long faults go on, in microseconds of virtual time, at most an hour; 0 for a minute.
    pub duration_us: u64,
    /// \brief After a violation: most runs of a search for a shorter one, whose report then is the answer; 0 for none.
    pub shrink_runs: u64,
    /// \brief Kinds of faults to leave out, by name, with commas: `kill,rot`. What is no name is refused with a list
    /// of them all. Empty for none.
    pub without: raftz_slice,
    /// \brief Faults of the run to leave out, by number, with commas: `3,5-9`; as a report's `skip`. Empty for none.
    pub skip: raftz_slice,
    /// \brief Given to `workload` and `tell`.
    pub user_data: *mut c_void,
    /// \brief Draws the next command that a client proposes, and writes it with raftz_sink_write(): at most
    /// RAFTZ_SIM_COMMAND_BYTES_MAX bytes, which follow from what `chooser` answers alone. A status other than RAFTZ_OK,
    /// with words by raftz_sink_fail(), makes raftz_sim_run() fail. NULL: up to 32 random bytes.
    pub workload: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            chooser: *mut raftz_sim_chooser,
            command: *mut raftz_sink,
        ) -> raftz_status,
    >,
    /// \brief Told line by line what happens in the run, as it was asked for; those of a search for a shorter one are
    /// silent. Optional.
    pub tell: Option<unsafe extern "C" fn(user_data: *mut c_void, line: raftz_slice)>,
}

// SAFETY: integers, pointers and optional functions.
unsafe impl Sized for raftz_sim_opts {
    const NAME: &'static str = "raftz_sim_opts";
}

impl raftz_sim_opts {
    const NOTHING: raftz_slice = raftz_slice { data: std::ptr::null(), len: 0 };
    /// What is not asked for.
    const DEFAULT: Self = Self {
        size: 0,
        duration_us: 0,
        shrink_runs: 0,
        without: Self::NOTHING,
        skip: Self::NOTHING,
        user_data: std::ptr::null_mut(),
        workload: None,
        tell: None,
    };

    /// The plan of a seed as it is asked for.
    ///
    /// # Safety
    /// As [`guard::bytes`], for both texts.
    unsafe fn plan(&self, seed: u64) -> Call<Plan> {
        // SAFETY: the caller's contract.
        let (without, skip) = unsafe {
            (asked(self.without, "without", text::kinds)?, asked(self.skip, "skip", text::numbers)?)
        };
        let mut plan = Plan::drawn(seed);
        plan.faults.retain(|fault| !without.contains(fault));
        plan.skipped = skip;
        match self.duration_us {
            0 => {}
            duration_us @ 1..=DURATION_US_MAX => plan.duration_us = duration_us,
            longer => {
                return Err(invalid(format!(
                    "raftz_sim_opts.duration_us is {longer}; an hour, {DURATION_US_MAX}, is the most"
                )));
            }
        }
        Ok(plan)
    }
}

/// What a text asks for; nothing if it is empty.
///
/// # Safety
/// As [`guard::bytes`].
unsafe fn asked<T: Default>(
    slice: raftz_slice,
    field: &str,
    read: fn(&str) -> Result<T, String>,
) -> Call<T> {
    let name = format!("raftz_sim_opts.{field}");
    // SAFETY: the caller's contract.
    let bytes = unsafe { guard::bytes(slice, &name) }?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Failure::new(RAFTZ_BAD_UTF8, format!("{name} is not UTF-8: {error}")))?;
    read(text).map_err(|wrong| invalid(format!("{name}: {wrong}")))
}

/// \brief What became of a simulated run.
pub struct raftz_sim_report {
    report: Report,
    plan: Plan,
    skip: String,
    struck: String,
}

/// \brief What a report says. The words live as long as the report.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_sim_report_info {
    /// \brief Set it to `sizeof(raftz_sim_report_info)`.
    pub size: usize,
    /// \brief 1 if something was found wrong; else 0.
    pub is_violated: u32,
    /// \brief 1 if more was damaged than any cluster survives, so that only safety was judged; else 0.
    pub is_beyond_survival: u32,
    /// \brief What must hold and does not, such as "machines agree"; else empty.
    pub property: raftz_slice,
    /// \brief What happened, in a sentence; else empty.
    pub sentence: raftz_slice,
    /// \brief When, in microseconds of virtual time.
    pub at_us: u64,
    /// \brief The seed. With it, `duration_us`, `skip` and the same `without` the run is asked for again.
    pub seed: u64,
    /// \brief How long faults went on, in microseconds of virtual time.
    pub duration_us: u64,
    /// \brief Which of them were left out, by number: `3,5-9`.
    pub skip: raftz_slice,
    /// \brief A hash of everything that happened: equal runs have equal ones.
    pub trace: u64,
    /// \brief Virtual time that passed, in microseconds.
    pub virtual_us: u64,
    /// \brief How many things happened.
    pub events: u64,
    /// \brief How many faults struck.
    pub faults: u64,
    /// \brief Which kinds, with commas: `kill,split`.
    pub struck: raftz_slice,
    /// \brief How many entries were committed.
    pub committed: u64,
    /// \brief How many commands clients proposed.
    pub calls: u64,
    /// \brief How many of them were done.
    pub calls_done: u64,
    /// \brief How many were certainly not done.
    pub calls_refused: u64,
    /// \brief Of how many nobody could say.
    pub calls_unknown: u64,
}

// SAFETY: integers and pointers alone.
unsafe impl Sized for raftz_sim_report_info {
    const NAME: &'static str = "raftz_sim_report_info";
}

impl raftz_sim_report {
    fn new(plan: Plan, mut report: Report) -> Self {
        // Nobody asks for it here, and it is most of what there is.
        report.history = Vec::new();
        let struck = text::names(&report.faults.keys().copied().collect());
        Self { skip: text::ranges(&plan.skipped), struck, report, plan }
    }

    fn info(&self, size: usize) -> raftz_sim_report_info {
        let Self { report, plan, skip, struck } = self;
        let violation = report.violation.as_ref();
        let word = |text: &str| raftz_slice::of(text.as_bytes());
        let [calls, calls_done, calls_refused, calls_unknown] = report.calls;
        raftz_sim_report_info {
            size,
            is_violated: u32::from(violation.is_some()),
            is_beyond_survival: u32::from(report.is_beyond_survival),
            property: word(violation.map_or("", |it| it.property)),
            sentence: word(violation.map_or("", |it| &it.sentence)),
            at_us: violation.map_or(0, |it| it.at_us),
            seed: plan.seed,
            duration_us: plan.duration_us,
            skip: word(skip),
            trace: report.trace,
            virtual_us: report.virtual_us,
            events: report.events,
            faults: report.fault_count(),
            struck: word(struck),
            committed: report.committed,
            calls,
            calls_done,
            calls_refused,
            calls_unknown,
        }
    }
}

/// What a program brings.
struct Program {
    table: Table,
    opts: raftz_sim_opts,
    /// What made a run worthless; none of its functions is called for another machine or command then.
    failure: Mutex<Option<Failure>>,
}

// SAFETY: a simulation happens on the thread of the call, from its beginning to its end.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    fn fail(&self, failure: Failure) {
        *self.failure.lock() = Some(failure);
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    fn check(&self) -> Call {
        self.failure.lock().take().map_or(Ok(()), Err)
    }

    /// A machine for one life of a node.
    fn machine(&self) -> Box<dyn StateMachine> {
        if !self.has_failed() {
            match self.table.create() {
                Ok(machine) => return Box::new(machine),
                Err(error) => self.fail(Failure::new(RAFTZ_MACHINE, error.to_string())),
            }
        }
        // The run comes to its end with something in its place; nobody hears of it.
        Box::<CountingMachine>::default()
    }

    /// What a client proposes next.
    fn command(&self, chooser: &mut Chooser) -> Vec<u8> {
        let Some(workload) = self.opts.workload else {
            let length = chooser.between(0, DRAWN_BYTES_MAX);
            return (0..length).map(|_| byte(chooser)).collect();
        };
        if self.has_failed() {
            return Vec::new();
        }
        let mut command = raftz_sink::default();
        let mut chooser = raftz_sim_chooser { chooser };
        // SAFETY: the user's function, with the user's data and objects that live meanwhile.
        let status = unsafe { workload(self.opts.user_data, &raw mut chooser, &raw mut command) };
        let length = command.bytes.len();
        if status != RAFTZ_OK {
            let words = shown(status, command.failure);
            self.fail(Failure::new(RAFTZ_CALLBACK_FAILED, format!("workload returned {words}")));
        } else if length > RAFTZ_SIM_COMMAND_BYTES_MAX {
            let message = format!(
                "workload wrote a command of {length} bytes; a simulated cluster takes {RAFTZ_SIM_COMMAND_BYTES_MAX}"
            );
            self.fail(Failure::new(RAFTZ_TOO_LARGE, message));
        } else {
            return command.bytes;
        }
        Vec::new()
    }
}

fn byte(chooser: &mut Chooser) -> u8 {
    u8::try_from(chooser.below(256)).unwrap_or_default()
}

fn simulate(table: Table, opts: raftz_sim_opts, plan: Plan) -> Call<raftz_sim_report> {
    let program = Arc::new(Program { table, opts, failure: Mutex::default() });
    let (machines, commands) = (Arc::clone(&program), Arc::clone(&program));
    let simulation =
        Simulation::new(move || machines.machine(), move |chooser| commands.command(chooser));
    let report = match opts.tell {
        None => simulation.run(&plan),
        Some(tell) => simulation.run_aloud(&plan, move |line| {
            // SAFETY: the user's function, with the user's data and a line that lives meanwhile.
            unsafe { tell(opts.user_data, raftz_slice::of(line.as_bytes())) };
        }),
    };
    program.check()?;
    if report.violation.is_none() || opts.shrink_runs == 0 {
        return Ok(raftz_sim_report::new(plan, report));
    }
    let runs = usize::try_from(opts.shrink_runs).unwrap_or(usize::MAX);
    let (plan, report) = simulation.shrink(&plan, &report, runs);
    program.check()?;
    Ok(raftz_sim_report::new(plan, report))
}

/// \brief Runs a whole cluster with machines of the program's own, in virtual time, under faults that the seed draws:
/// processes die, networks split, disks lie, clocks drift. Replicas, log and codec are the library's own; no node,
/// thread, socket or file is made.
///
/// All the time it is checked that nothing promised is lost and that every machine answers as another one that applied
/// the same commands; in the end, that their snapshots are equal. A callback of a machine that fails is a violation,
/// too. The same seed with the same options gives the same report, if machine and workload follow from nothing
/// else. To try many seeds is to call this many times, also on several threads at once.
///
/// `create` makes a machine for every life of every node, and one for comparison; all are destroyed before the call
/// returns, and those of one run before the next begins. `query` and `applied_index` are not called: in some runs
/// machines persist themselves, which here means that a node keeps its machine when it dies. Snapshots should have no
/// more than 100000 bytes: how soon a healed cluster must work again is reckoned with that.
///
/// Threads: any; callbacks run on the one that calls, and blocking calls are refused in them. Inside callbacks: no
/// (RAFTZ_IN_CALLBACK). Blocks: for as long as a run takes, mostly less than a second, and so many more as
/// `shrink_runs` says.
///
/// \param machine The machine. Its `create` is required. Without snapshots only answers are compared.
/// \param seed Any number.
/// \param opts How; NULL for the defaults.
/// \param report [out] What became of it, to be freed with raftz_sim_report_free(): also if something was found wrong.
/// \param error [out] Why there was no run, or none of any worth; may be NULL.
/// \return RAFTZ_OK, RAFTZ_MACHINE if a machine was not created, RAFTZ_CALLBACK_FAILED if `workload` failed,
///         RAFTZ_TOO_LARGE if its command was, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BAD_UTF8, RAFTZ_ABI_MISMATCH or
///         RAFTZ_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sim_run(
    machine: *const raftz_machine,
    seed: u64,
    opts: *const raftz_sim_opts,
    report: *mut *mut raftz_sim_report,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(report, "report")?;
        // SAFETY: the caller's contract.
        let (table, opts) = unsafe { (Table::read(machine)?, sized::read(opts)?) };
        let table = table.ok_or_else(|| null("machine"))?;
        if !table.makes_machines() {
            return Err(null("raftz_machine.create"));
        }
        let opts = opts.unwrap_or(raftz_sim_opts::DEFAULT);
        // SAFETY: the caller's contract.
        let plan = unsafe { opts.plan(seed) }?;
        if let Some(inside) = node::inside_callback() {
            let message =
                format!("a simulation takes its time, which must not be done in {inside}");
            return Err(Failure::new(RAFTZ_IN_CALLBACK, message));
        }
        let report = node::run_callback("a simulation", || simulate(table, opts, plan))?;
        // SAFETY: the caller's contract.
        unsafe { out.give(report) };
        Ok(())
    })
}

/// \brief Frees a report.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param report The report, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sim_report_free(report: *mut raftz_sim_report) {
    // SAFETY: the caller's contract: NULL, or a report that is C's own.
    unsafe { free(report) }
}

/// \brief What a report says.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param report The report.
/// \param info [in,out] Set its `size` to `sizeof(raftz_sim_report_info)`; the rest is filled.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sim_report_get(
    report: *const raftz_sim_report,
    info: *mut raftz_sim_report_info,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let report = unsafe { borrow(report, "report") }?;
        // SAFETY: the caller's contract.
        let out = unsafe { Place::new(info, "info") }?;
        let said = report.info(out.size);
        // SAFETY: the caller's contract.
        unsafe { out.put(&said) };
        Ok(())
    })
}

/// \brief Draws one of the numbers from 0 to `count` - 1.
///
/// Threads: the one that called `workload`. Inside callbacks: only there. Blocks: no.
///
/// \param chooser What `workload` was given; for NULL the answer is 0.
/// \param count How many there are; of 0 or 1 the answer is 0.
/// \return The number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sim_chooser_below(
    chooser: *mut raftz_sim_chooser,
    count: u64,
) -> u64 {
    value(0, || {
        // SAFETY: the caller's contract.
        Ok(unsafe { chooser_of(chooser) }?.below(count))
    })
}

/// \brief Fills a buffer with random bytes.
///
/// Threads: the one that called `workload`. Inside callbacks: only there. Blocks: no.
///
/// \param chooser What `workload` was given.
/// \param buffer Where they go.
/// \param capacity How many.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_sim_chooser_fill(
    chooser: *mut raftz_sim_chooser,
    buffer: *mut u8,
    capacity: usize,
) -> raftz_status {
    call(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let chooser = unsafe { chooser_of(chooser) }?;
        if buffer.is_null() {
            return Err(null("buffer"));
        }
        if isize::try_from(capacity).is_err() {
            return Err(invalid("capacity is more than there is memory"));
        }
        for at in 0..capacity {
            // SAFETY: the caller's contract: so many bytes are there, and nobody else's meanwhile.
            unsafe { buffer.add(at).write(byte(chooser)) };
        }
        Ok(())
    })
}

/// Who answers in this call of `workload`.
///
/// # Safety
/// NULL, or what `workload` was given, in that call.
unsafe fn chooser_of<'a>(chooser: *mut raftz_sim_chooser) -> Call<&'a mut Chooser> {
    // SAFETY: the caller's contract; it lives as long as the call of `workload`, in which this is called.
    unsafe { Ok(&mut *borrow_mut(chooser, "chooser")?.chooser) }
}
