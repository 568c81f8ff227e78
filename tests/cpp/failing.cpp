/* Callbacks that fail, by an exception or by what they return: each is told where the header says, and the process
 * goes on. */
#include "check.hpp"

#if defined(__cpp_exceptions)
struct odd {};
#endif

/* A machine that keeps the last command, and fails when that names the method. */
class fragile : public raftz::snapshot_machine {
  public:
    explicit fragile(tally &ended) : ends_(ended) {}

    raftz::result<void> apply(const raftz::commands &batch, raftz::replies &answers) override {
        for (const raftz::command command : batch) {
            if (command.data == "apply") {
                FAIL("apply has had enough");
            }
#if defined(__cpp_exceptions)
            if (command.data == "odd") {
                throw odd();
            }
#endif
            if (command.data == "reject") {
                answers.reject("no such thing");
                continue;
            }
            last_ = command.data.str();
            answers.push(last_);
        }
        return {};
    }
    raftz::result<void> query(raftz::slice request, raftz::sink &answer) const override {
        if (request == "fail") {
            FAIL("query has no answer");
        }
        if (request == "reject") {
            answer.reject();
        }
        answer.write("last ");
        answer.write(last_);
        return {};
    }
    raftz::result<std::unique_ptr<raftz::snapshot>> snapshot() override {
        if (last_ == "snapshot") {
            FAIL("snapshot finds no beginning");
        }
        if (last_ == "none") {
            return nullptr;
        }
        if (last_ == "read") {
            return std::make_unique<unreadable>();
        }
        return raftz::snapshot_of(last_);
    }
    raftz::result<void> restore(raftz::source &from) override {
        last_ = OK(from.read_all());
        if (last_ == "restore") {
            FAIL("restore does not like it");
        }
        return {};
    }

  private:
    class unreadable : public raftz::snapshot {
        raftz::result<void> read(raftz::sink &) override { FAIL("reading breaks off"); }
    };

    std::string last_;
    token ends_;
};

/* A replica whose apply fails stops, says why in an event and in its state, and leaves the process alone. */
static void applying(const char *command, std::string_view wanted) {
    tally ended;
    lines events;
    const auto network = OK(raftz::network::make());
    auto config = configured(1, 1);
    config.on_event(raftz::event_kinds(RAFTZ_EVENT_FAULTED), [&](const raftz_event_info &event) {
        events.add(raftz::slice(event.text).str());
    });
    auto node = OK(raftz::node::start(config, std::make_unique<fragile>(ended), in(network)));
    CHECK(OK(node.propose_wait("well")).text() == "well");
    const auto rejected = OK(node.propose_wait("reject"));
    CHECK(rejected.is_rejected() && rejected.text() == "no such thing");
    const auto failed = node.propose_wait(command);
    CHECK(!failed && failed.error().status() == RAFTZ_UNKNOWN_FAULTED);
    CHECK(failed.error().is_outcome_unknown() && !failed.error().is_retriable());
    const std::string told = events.wait_for(wanted);
    CHECK(has(told, "apply") && has(told, "RAFTZ_CALLBACK_FAILED"));
    const auto state = OK(node.state());
    CHECK(has(state.fault(), wanted));
    WANT(RAFTZ_FAULTED, node.propose_wait("more"));
    OK(node.stop(1min));
    node.reset();
    CHECK(events.count() == 1 && ended.now() == 1);
}

/* Only who asked is told. */
static void asking() {
    tally ended;
    const auto network = OK(raftz::network::make());
    auto node =
        OK(raftz::node::start(configured(1, 1), std::make_unique<fragile>(ended), in(network)));
    OK(node.propose_wait("one"));
    const auto failed = node.read_wait("fail");
    CHECK(!failed && failed.error().status() == RAFTZ_READ_FAILED);
    CHECK(has(failed.error().message(), "query has no answer"));
    CHECK(OK(node.read_wait("what")).text() == "last one");
    CHECK(OK(node.read_wait("reject")).is_rejected());
    CHECK(OK(node.propose_wait("two")).text() == "two");

    /* A machine without questions says so. */
    auto other = OK(raftz::node::start(
        configured(1, 1),
        raftz::machine_of([](const raftz::commands &batch, raftz::replies &answers) {
            for (const raftz::command command : batch) {
                answers.push(command.data);
            }
        }),
        in(network)));
    CHECK(OK(other.propose_wait("x")).text() == "x");
    const auto unasked = other.read_wait("what");
    CHECK(!unasked && has(unasked.error().message(), "answers no questions"));
}

/* A snapshot that fails is none; the replica goes on, and the next one is taken. */
static void freezing() {
    tally ended;
    const auto network = OK(raftz::network::make());
    auto node =
        OK(raftz::node::start(configured(1, 1), std::make_unique<fragile>(ended), in(network)));
    for (const auto &[command, wanted] :
         {std::pair("snapshot", "snapshot finds no beginning"), std::pair("read", "reading breaks off"),
          std::pair("none", "gave no snapshot")}) {
        OK(node.propose_wait(command));
        const auto failed = node.snapshot(1min);
        CHECK(!failed && failed.error().status() == RAFTZ_SNAPSHOT_UNAVAILABLE);
        CHECK(has(failed.error().message(), wanted));
    }
    const auto index = OK(node.propose_wait("fine")).index();
    CHECK(OK(node.snapshot(1min)) == index);
    OK(node.stop(1min));
    CHECK(ended.now() == 1);
}

/* A node whose machine cannot be restored does not start, and says what the machine said. */
static void restoring(const std::string &folder) {
    tally ended;
    const auto network = OK(raftz::network::make());
    auto config = configured(1, 1);
    config.directory(folder + "/restoring");
    CHECK(!OK(raftz::node::is_formatted(config)));
    OK(raftz::node::bootstrap(config));
    CHECK(OK(raftz::node::is_formatted(config)));
    WANT(RAFTZ_STORAGE, raftz::node::bootstrap(config));
    for (const char *last : {"good", "restore"}) {
        auto node = OK(raftz::node::start(config, std::make_unique<fragile>(ended), in(network)));
        if (last == std::string_view("restore")) {
            CHECK(OK(node.read_wait("what")).text() == "last good");
        }
        OK(node.propose_wait(last));
        OK(node.snapshot(1min));
        OK(node.stop(1min));
    }
    const auto failed = raftz::node::start(config, std::make_unique<fragile>(ended), in(network));
    CHECK(!failed && failed.error().status() == RAFTZ_MACHINE);
    CHECK(has(failed.error().message(), "RAFTZ_CALLBACK_FAILED (-103): restore does not like it"));
    CHECK(ended.now() == 3);
}

/* A running replica that is sent a snapshot and cannot take it stops with an event; the others go on. */
static void installing() {
    tally ended;
    lines events;
    cluster nodes;
    const auto start = [&](std::size_t at) {
        auto config = configured(at + 1, nodes.nodes.size());
        config.set("snapshot_retain_bytes", 0);
        config.on_event(raftz::event_kinds(RAFTZ_EVENT_FAULTED), [&](const raftz_event_info &event) {
            events.add(std::to_string(event.node_id) + ": " + raftz::slice(event.text).str());
        });
        nodes.nodes[at] =
            OK(raftz::node::start(config, std::make_unique<fragile>(ended), in(nodes.network)));
    };
    start(0);
    start(1);
    raftz::node &leader = nodes.nodes[nodes.leader()];
    OK(leader.propose_wait("one"));
    OK(leader.propose_wait("restore"));
    OK(leader.snapshot(1min));
    OK(leader.propose_wait("two"));
    start(2);
    CHECK(has(events.wait_for("restore"), "3: ") && has(events.wait_for("3: "), "RAFTZ_CALLBACK_FAILED"));
    CHECK(has(OK(nodes.nodes[2].state()).fault(), "restore does not like it"));
    CHECK(OK(nodes.nodes[nodes.leader()].propose_wait("three")).text() == "three");
    for (raftz::node &node : nodes.nodes) {
        OK(node.stop(1min));
        node.reset();
    }
    CHECK(ended.now() == 3 && events.count() == 1);
}

/* A machine that cannot say how far its own storage is does not start. */
static void persisting() {
    class lost : public raftz::machine {
      public:
        explicit lost(tally &ended) : ends_(ended) {}
        raftz::result<void> apply(const raftz::commands &, raftz::replies &) override { return {}; }
        raftz::result<std::optional<std::uint64_t>> applied_index() override {
            FAIL("my file is gone");
        }

      private:
        token ends_;
    };
    tally ended;
    const auto network = OK(raftz::network::make());
    const auto failed =
        raftz::node::start(configured(1, 1), std::make_unique<lost>(ended), in(network));
    CHECK(!failed && failed.error().status() == RAFTZ_MACHINE);
    CHECK(has(failed.error().message(), "my file is gone") && ended.now() == 1);
}

#if defined(__cpp_exceptions)
/* What leaves a completion or an observer changes nothing, and is told. */
static void observing() {
    tally ended;
    lines failures;
    const auto network = OK(raftz::network::make());
    auto config = configured(1, 1);
    config.on_failure([&](std::string_view where, std::string_view what) {
        failures.add(std::string(where) + ": " + std::string(what));
        throw std::runtime_error("who is told fails, too");
    });
    config.on_event(RAFTZ_EVENTS_ALL, [ends = token(ended)](const raftz_event_info &) {
        throw std::runtime_error("no events, please");
    });
    config.on_log(RAFTZ_LOG_TRACE, [ends = token(ended)](std::uint32_t, std::string_view) {
        throw std::logic_error("no lines, please");
    });
    auto node = OK(raftz::node::start(config, in(network)));
    failures.wait_for("an event's observer: no events, please");
    failures.wait_for("a log line's observer: no lines, please");
    OK(node.propose(raftz::kv::set("a", "1"), [ends = token(ended)](const raftz::outcome &) {
        throw std::runtime_error("no outcome, please");
    }));
    failures.wait_for("a completion: no outcome, please");
    OK(node.propose_batch({"x", "y"}, [ends = token(ended)](const raftz::outcomes &) { throw odd(); }));
    failures.wait_for("a completion: an exception that is no std::exception");
    OK(node.read(raftz::kv::get("a"), [](const raftz::outcome &) { throw 7; }));
    OK(node.transfer_leadership(9, 1s, [](const raftz::outcome &) { throw 8; }));
    const auto after = OK(raftz::kv::answer::of(node.read_wait(raftz::kv::get("a"))));
    CHECK(after.value() == "1");

    /* It may be told elsewhere at any time, and in the end on standard error. */
    lines others;
    config.on_failure([&](std::string_view, std::string_view what) { others.add(std::string(what)); });
    OK(node.read(raftz::kv::get("a"), [](const raftz::outcome &) { throw std::runtime_error("later"); }));
    others.wait_for("later");
    config.on_failure(nullptr);
    tally told;
    OK(node.read(raftz::kv::get("a"), [&](const raftz::outcome &) {
        told.add();
        throw std::runtime_error("on standard error");
    }));
    told.wait(1);
    OK(node.stop(1min));
    node.reset();
    CHECK(ended.now() == 2);
    config.reset();
    CHECK(ended.now() == 4);
}
#endif

int main(int count, char **arguments) {
    watchdog();
    CHECK(count == 2);
    applying("apply", "apply has had enough");
    asking();
    freezing();
    restoring(arguments[1]);
    installing();
    persisting();
#if defined(__cpp_exceptions)
    applying("odd", "no std::exception");
    observing();
#endif
    return 0;
}
