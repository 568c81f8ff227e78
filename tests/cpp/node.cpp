/* Everything that a program does with a node, in each of its forms: by callback, future, queue, and waiting. */
#include "check.hpp"

#include <poll.h>

namespace kv = raftz::kv;

static raftz_kv_reply_info answer(const raftz::result<raftz::reply> &reply) {
    raftz_kv_reply_info info = OK(kv::answer::of(reply)).info();
    /* It went with the answer. */
    info.value = {nullptr, 0};
    return info;
}

static void commands(raftz::node &node) {
    CHECK(answer(node.propose_wait(kv::set("city", "Torino"))).kind == RAFTZ_KV_STORED);
    CHECK(answer(node.propose_wait(kv::increment("n", 5))).number == 5);
    CHECK(answer(node.propose_wait(kv::increment("n"))).number == 6);
    CHECK(answer(node.propose_wait(kv::compare_and_set("city", "Torino", "Roma"))).kind ==
          RAFTZ_KV_SWAPPED);
    CHECK(answer(node.propose_wait(kv::compare_and_set("city", std::nullopt, "x"))).kind ==
          RAFTZ_KV_NOT_SWAPPED);
    CHECK(answer(node.propose_wait(kv::compare_and_set("new", std::nullopt, "x"))).kind ==
          RAFTZ_KV_SWAPPED);
    CHECK(answer(node.propose_wait(kv::compare_and_set("new", "x", std::nullopt))).kind ==
          RAFTZ_KV_SWAPPED);
    const auto deleted = answer(node.propose_wait(kv::delete_key("n")));
    CHECK(deleted.kind == RAFTZ_KV_DELETED && deleted.is_on == 1);
    CHECK(answer(node.propose_wait("nonsense")).kind == RAFTZ_KV_REJECTED);

    OK(node.propose_wait(kv::set("country", "Italia")));
    const auto first = OK(kv::answer::of(node.read_wait(kv::scan("c", 1))));
    CHECK(first.kind() == RAFTZ_KV_SCANNED && first.count() == 1 && first.is_on());
    const auto [key, value] = OK(first.entry(0));
    CHECK(key == "city" && value == "Roma");
    WANT(RAFTZ_INVALID_ARG, first.entry(1));
    const auto rest = OK(kv::answer::of(node.read_wait(kv::scan("c", 9, key))));
    CHECK(rest.count() == 1 && OK(rest.entry(0)).first == "country" && !rest.is_on());
    const auto digest = OK(kv::answer::of(node.read_wait(kv::digest())));
    CHECK(digest.kind() == RAFTZ_KV_DIGEST && digest.count() == 2);
    WANT(RAFTZ_INVALID_ARG, kv::answer::of("not an answer", 0));
}

static void proposals(raftz::node &node) {
    /* One by callback, with what a move alone can carry. */
    tally told;
    auto note = std::make_unique<std::string>("kept");
    OK(node.propose(kv::set("a", "1"), [&told, note = std::move(note)](const raftz::outcome &it) {
        CHECK(it && it.is_done() && !it.is_rejected() && !it.is_outcome_unknown());
        CHECK(it.index() > 0 && it.term() > 0 && it.status() == RAFTZ_OK && *note == "kept");
        CHECK(OK(kv::answer::of(it)).kind() == RAFTZ_KV_STORED && it.message().empty());
        told.add();
    }));
    told.wait(1);
    /* Bytes that are borrowed, adopted, and of an owner who keeps them. */
    auto command = OK(kv::set("a", "2"));
    OK(node.propose_wait(command.view()));
    OK(node.propose_wait(command));
    OK(node.propose_wait(OK(raftz::bytes::adopt(command.view().str()))));
    CHECK(command);
    OK(node.propose(std::move(command), [&](const raftz::outcome &) { told.add(); }));
    told.wait(2);

    auto future = node.propose_future(kv::increment("count"));
    CHECK(answer(future.get()).number == 1);
    auto commands = std::vector<raftz::bytes>();
    std::vector<raftz::slice> batch;
    for (int at = 0; at < 3; at++) {
        commands.push_back(OK(kv::increment("count")));
        batch.emplace_back(commands.back());
    }
    const auto all = OK(node.propose_batch_future(batch).get());
    CHECK(all.size() == 3 && answer(all[2]).number == 4);
    CHECK(all[0]->index() < all[1]->index() && all[0]->term() > 0);
    OK(node.propose_batch(batch, [&](const raftz::outcomes &ended) {
        CHECK(ended.size() == 3 && ended[2].is_done());
        for (const raftz::outcome one : ended) {
            told.add(one ? 1 : 100);
        }
    }));
    told.wait(5);
    CHECK(told.now() == 5);
    CHECK(OK(node.propose_batch_future({}).get()).empty());

    raftz::propose_options options;
    options.expected_term = 1u << 30;
    const auto refused = node.propose_wait("x", options);
    CHECK(!refused && refused.error().status() == RAFTZ_TERM_MISMATCH);
    CHECK(node.propose_future("x", options).get().error().status() == RAFTZ_TERM_MISMATCH);
}

static void reads(const raftz::node &node, std::uint64_t index) {
    for (const raftz::read_options &options :
         {raftz::read_options::linearizable(), raftz::read_options::lease(),
          raftz::read_options::at_least(index), raftz::read_options::bounded(30s),
          raftz::read_options::stale(), raftz::read_options::stale().within(30s)}) {
        OK(node.wait_for_applied(index, 1min));
        CHECK(OK(kv::answer::of(node.read_wait(kv::get("city"), options))).value() == "Roma");
        CHECK(OK(kv::answer::of(node.read_future(kv::get("city"), options).get())).is_on());
        tally told;
        OK(node.read(
            kv::get("city"),
            [&](const raftz::outcome &it) {
                CHECK(OK(kv::answer::of(it)).value() == "Roma" && it.index() == 0);
                told.add();
            },
            options));
        told.wait(1);
    }
    WANT(RAFTZ_APPLY_TIMEOUT, node.wait_for_applied(index + 1000, 1ms));
}

static void queues(raftz::node &node) {
    raftz::queue_options small;
    small.calls_max = 2;
    auto queue = OK(raftz::queue::make(small));
    int mark = 0;
    WANT(RAFTZ_EMPTY, queue.next());
    OK(node.propose_queued({OK(kv::set("q", "1")), "nonsense"}, queue, &mark));
    WANT(RAFTZ_BUSY, node.read_queued(kv::get("q"), queue, nullptr));
    pollfd readable = {queue.fd(), POLLIN, 0};
    CHECK(::poll(&readable, 1, -1) == 1);
    auto event = OK(queue.next(1min));
    CHECK(event.kind() == RAFTZ_EVENT_COMPLETION && event.info().user_data == &mark);
    auto moved = std::move(event);
    const raftz::outcomes ended = moved.outcomes();
    CHECK(ended.size() == 2 && ended[0].is_done() && ended[1].is_rejected());
    CHECK(event.outcomes().empty());
    OK(node.read_queued(kv::get("q"), queue, &mark));
    event = OK(queue.next(1min));
    CHECK(OK(kv::answer::of(event.outcomes()[0])).value() == "1");
    CHECK(queue.dropped() == 0);
    OK(queue.close());
    WANT(RAFTZ_CLOSED, node.propose_queued({"x"}, queue, nullptr));
    WANT(RAFTZ_CLOSED, queue.next());
}

static void told_of(const raftz::node &node, bool leads) {
    const auto state = OK(node.state());
    const raftz_state_info info = state.info();
    CHECK(info.node_id == node.id() && info.leader_id > 0 && state.fault().empty());
    CHECK(state.peers().size() == 2 && !state.obstacles().empty());
    for (const raftz_peer_info &peer : state.peers()) {
        CHECK(peer.node_id != node.id() && !raftz::slice(peer.address).empty());
    }
    CHECK(OK(node.metrics()).node_id == node.id());
    const std::uint64_t other = state.peers()[0].node_id;
    CHECK((OK(node.metrics_peer(other)).is_led != 0) == leads);
    CHECK(has(OK(node.metrics_text()), "raftz_commit_index"));
    CHECK(OK(node.listen_address()).empty());
    raftz::watch watch;
    CHECK(OK(watch.next(node, 1min)).node_id == node.id());
}

/* Leadership is handed over in every form; each time another leads in the end. */
static void transfers(cluster &nodes) {
    auto queue = OK(raftz::queue::make());
    const auto eventually = [&](const auto &attempt) {
        for (;;) {
            const std::size_t at = nodes.leader();
            const raftz::result<std::uint64_t> leader = attempt(nodes.nodes[at]);
            if (leader) {
                CHECK(*leader != nodes.nodes[at].id() && *leader > 0);
                return;
            }
            /* Elections may come between, and others may not be fit to lead yet. */
            CHECK(leader.error().is_retriable() || leader.error().status() == RAFTZ_TRANSFER_OVERTAKEN);
        }
    };
    const auto of_queue = [&](const raftz::result<void> &accepted) -> raftz::result<std::uint64_t> {
        OK(accepted);
        const auto event = OK(queue.next(1min));
        const raftz::outcome ended = event.outcomes()[0];
        return ended ? raftz::result<std::uint64_t>(ended.leader_id()) : raftz::error(ended.native());
    };
    const auto of_callback = [](const auto &call) {
        std::promise<raftz::result<std::uint64_t>> promise;
        OK(call([&](const raftz::outcome &ended) {
            promise.set_value(ended ? raftz::result<std::uint64_t>(ended.leader_id())
                                    : raftz::error(ended.native()));
        }));
        return promise.get_future().get();
    };
    eventually([&](raftz::node &it) { return it.transfer_leadership_wait(0, 30s); });
    eventually([&](raftz::node &it) { return it.transfer_leadership_future(it.id() % 3 + 1, 30s).get(); });
    eventually([&](raftz::node &it) { return of_queue(it.transfer_leadership_queued(0, 30s, queue, nullptr)); });
    eventually([&](raftz::node &it) {
        return of_callback([&](auto done) { return it.transfer_leadership(0, 30s, done); });
    });
    eventually([&](raftz::node &it) { return it.step_down_wait(30s); });
    eventually([&](raftz::node &it) { return it.step_down_future(30s).get(); });
    eventually([&](raftz::node &it) { return of_queue(it.step_down_queued(30s, queue, nullptr)); });
    eventually([&](raftz::node &it) {
        return of_callback([&](auto done) { return it.step_down(30s, done); });
    });
    WANT(RAFTZ_TRANSFER_TARGET, nodes.nodes[nodes.leader()].transfer_leadership_wait(9, 30s));
    OK(nodes.nodes[0].campaign());
}

/* Blocking calls are refused inside callbacks; others are welcome. */
static void inside(raftz::node &node) {
    tally told;
    OK(node.propose("x", [&](const raftz::outcome &) {
        WANT(RAFTZ_IN_CALLBACK, node.propose_wait("y"));
        WANT(RAFTZ_IN_CALLBACK, node.read_wait("y"));
        WANT(RAFTZ_IN_CALLBACK, node.stop());
        OK(node.propose("z", [&](const raftz::outcome &it) { told.add(it ? 1 : 100); }));
        told.add();
    }));
    told.wait(2);
    CHECK(told.now() == 2);
}

int main() {
    watchdog();
    CHECK(raftz_version() == RAFTZ_VERSION);
    cluster nodes;
    auto events = OK(raftz::queue::make());
    lines log;
    tally elected;
    for (std::size_t at = 0; at < nodes.nodes.size(); at++) {
        auto config = configured(at + 1, nodes.nodes.size());
        config.on_log(RAFTZ_LOG_INFO, [&](std::uint32_t level, std::string_view line) {
            CHECK(level >= RAFTZ_LOG_ERROR && level <= RAFTZ_LOG_INFO);
            log.add(std::string(line));
        });
        if (at == 0) {
            config.on_event(raftz::event_kinds(RAFTZ_EVENT_LEADER, RAFTZ_EVENT_ROLE), events);
        } else {
            config.on_event(raftz::event_kinds(RAFTZ_EVENT_LEADER), [&](const raftz_event_info &it) {
                CHECK(it.kind == RAFTZ_EVENT_LEADER && it.size == sizeof it);
                elected.add();
            });
        }
        nodes.nodes[at] = OK(raftz::node::start(config, in(nodes.network)));
    }
    for (const raftz::node &node : nodes.nodes) {
        CHECK(OK(node.wait_for_leader(1min)) > 0);
    }
    elected.wait(2);
    const auto event = OK(events.next(1min));
    CHECK(event.kind() == RAFTZ_EVENT_LEADER || event.kind() == RAFTZ_EVENT_ROLE);
    CHECK(event.info().node_id == 1);
    log.wait_for("node=");

    const std::size_t leader = nodes.leader();
    commands(nodes.nodes[leader]);
    proposals(nodes.nodes[leader]);
    queues(nodes.nodes[leader]);
    inside(nodes.nodes[leader]);
    const std::uint64_t index = OK(nodes.nodes[leader].propose_wait("x")).index();
    for (std::size_t at = 0; at < nodes.nodes.size(); at++) {
        reads(nodes.nodes[at], index);
        told_of(nodes.nodes[at], at == leader);
    }
    CHECK(OK(nodes.nodes[leader].snapshot(1min)) >= index);
    transfers(nodes);
    for (raftz::node &node : nodes.nodes) {
        OK(node.stop(1min));
        WANT(RAFTZ_SHUT_DOWN, node.propose_wait("x"));
        WANT(RAFTZ_SHUT_DOWN, node.propose_future("x").get());
    }
    return 0;
}
