/* Slices, errors, results and handles by themselves: what they say, how they move, and what they are afterwards. */
#include "check.hpp"

#include <sys/socket.h>

#include <netinet/in.h>

static void slices() {
    const std::string text = "text";
    const std::vector<std::uint8_t> octets = {'t', 'e', 'x', 't'};
    const std::array<char, 4> letters = {'t', 'e', 'x', 't'};
    for (const raftz::slice slice :
         {raftz::slice("text"), raftz::slice(text), raftz::slice(std::string_view(text)),
          raftz::slice(octets), raftz::slice(letters), raftz::slice(text.data(), text.size()),
          raftz::slice(raftz_text("text"))}) {
        CHECK(slice == "text" && slice.size() == 4 && slice.str() == text && slice.text() == text);
        CHECK(slice != "texts" && slice.native().len == 4 && !slice.empty());
    }
    const char *none = nullptr;
    CHECK(raftz::slice(none).empty() && raftz::slice() == "" && raftz::slice().text().empty());
    CHECK(raftz::slice(std::string_view("a\0b", 3)).size() == 3);
}

static void errors() {
    const raftz::error mine("my words");
    CHECK(mine.status() == RAFTZ_CALLBACK_FAILED && mine.message() == "my words");
    CHECK(raftz::error(RAFTZ_OK, "x").status() == RAFTZ_CALLBACK_FAILED);
    CHECK(!mine.is_retriable() && !mine.is_fatal() && !mine.is_outcome_unknown());
    CHECK(std::string_view(mine.name()) == "RAFTZ_CALLBACK_FAILED");
    CHECK(raftz::error(RAFTZ_BUSY, "").is_retriable() && raftz::error(RAFTZ_CLOSED, "").is_fatal());
    CHECK(raftz::error(RAFTZ_UNKNOWN_TIMEOUT, "").is_outcome_unknown());

    raftz_outcome outcome{};
    outcome.status = RAFTZ_NOT_LEADER;
    outcome.leader_id = 3;
    outcome.message = raftz_text("node 3 leads");
    const auto refused = raftz::outcome(outcome).to_result();
    CHECK(!refused && refused.error().leader_id() == 3 && refused.error().is_retriable());
    CHECK(refused.error().message() == "node 3 leads");

    /* What C says of an object of its own. */
    raftz_error *raw = nullptr;
    CHECK(raftz_config_new(0, "c1", nullptr, &raw) == RAFTZ_NULL_ARG);
    CHECK(has(raftz::error::take(RAFTZ_NULL_ARG, raw).message(), "config"));
    CHECK(raftz::error::take(RAFTZ_EMPTY, nullptr).is_retriable());
}

static raftz::result<std::string> perhaps(bool is_there) {
    if (is_there) {
        return "here";
    }
    return raftz::error(RAFTZ_BUSY, "not now");
}

static void results() {
    auto there = perhaps(true);
    CHECK(there && there.has_value() && *there == "here" && there->size() == 4);
    CHECK(there.error().status() == RAFTZ_OK && there.error().message().empty());
    const auto copy = there;
    CHECK(copy && copy.value() == "here" && *copy == "here" && copy->size() == 4);
    const std::string moved = *std::move(there);
    CHECK(moved == "here");
    CHECK(!perhaps(false) && perhaps(false).error().status() == RAFTZ_BUSY);
    CHECK(perhaps(false).value_or("else") == "else" && perhaps(true).value_or("else") == "here");
    const raftz::result<void> done, not_done = raftz::error("why");
    CHECK(done && done.error().status() == RAFTZ_OK);
    CHECK(!not_done && not_done.error().message() == "why");
    const raftz::result<std::unique_ptr<int>> owner = std::make_unique<int>(7);
    CHECK(owner && **owner == 7);
}

/* Moved to itself by a way that no compiler sees through. */
template <class T> static void self_move(T &object) {
    T *const same = &object;
    object = std::move(*same);
}

static void moves() {
    auto one = OK(raftz::bytes::copy("x"));
    raftz_bytes *const raw = one.native();
    self_move(one);
    CHECK(one.native() == raw && one.view() == "x");
    raftz::bytes two = std::move(one);
    CHECK(!one && one.native() == nullptr && one.view().empty() && two.native() == raw);
    one = std::move(two);
    CHECK(one.native() == raw && !two);
    one = OK(raftz::bytes::copy("y"));
    CHECK(one.view() == "y");
    one.reset();
    one.reset();
    CHECK(!one);
    raftz::bytes let_go(OK(raftz::bytes::copy("z")).release());
    CHECK(let_go.view() == "z");

    tally ended;
    struct content : std::vector<char> {
        token ends;
        content(std::vector<char> from, tally &ended)
            : std::vector<char>(std::move(from)), ends(ended) {}
    };
    {
        auto adopted = OK(raftz::bytes::adopt(content({'a', 'b'}, ended)));
        const auto again = std::move(adopted);
        CHECK(again.view() == "ab" && ended.now() == 0);
    }
    CHECK(ended.now() == 1);
    CHECK(OK(raftz::bytes::adopt(std::string("short"))).view() == "short");

    auto queue = OK(raftz::queue::make());
    self_move(queue);
    OK(queue.close());
    OK(queue.close());
    WANT(RAFTZ_CLOSED, queue.next(1min));
    auto config = configured(1, 1);
    self_move(config);
    OK(config.check());
    auto network = OK(raftz::network::make());
    self_move(network);
    auto node = OK(raftz::node::start(config, in(network)));
    self_move(node);
    CHECK(node.id() == 1);
    OK(node.wait_for_leader(1min));
    raftz::node other = std::move(node);
    CHECK(other.id() == 1 && !node);
    OK(other.stop());
    OK(other.stop());
    other.reset();
    other.reset();
}

static void after_a_move() {
    auto queue = OK(raftz::queue::make());
    auto network = OK(raftz::network::make());
    auto config = configured(1, 1);
    auto node = OK(raftz::node::start(config, in(network)));
    const auto kept_queue = std::move(queue);
    const auto kept_node = std::move(node);
    const auto kept_network = std::move(network);
    tally ended;
    const auto done = [&](const raftz::outcome &) { give_up(__FILE__, __LINE__, "it was never accepted"); };
    const auto all_done = [](const raftz::outcomes &) { give_up(__FILE__, __LINE__, "it was never accepted"); };

    CHECK(node.id() == 0);
    WANT(RAFTZ_NULL_ARG, node.propose("x", [ends = token(ended), done](const raftz::outcome &it) {
        done(it);
    }));
    CHECK(ended.now() == 1);
    WANT(RAFTZ_NULL_ARG, node.propose_wait("x"));
    WANT(RAFTZ_NULL_ARG, node.propose_future("x").get());
    WANT(RAFTZ_NULL_ARG, node.propose_batch({"x"}, all_done));
    WANT(RAFTZ_NULL_ARG, node.propose_batch_future({"x"}).get());
    WANT(RAFTZ_NULL_ARG, node.propose_queued({"x"}, queue, nullptr));
    WANT(RAFTZ_NULL_ARG, node.read("x", done));
    WANT(RAFTZ_NULL_ARG, node.read_wait("x"));
    WANT(RAFTZ_NULL_ARG, node.read_future("x").get());
    WANT(RAFTZ_NULL_ARG, node.read_queued("x", queue, nullptr));
    WANT(RAFTZ_NULL_ARG, node.transfer_leadership(0, 1s, done));
    WANT(RAFTZ_NULL_ARG, node.transfer_leadership_wait(0, 1s));
    WANT(RAFTZ_NULL_ARG, node.transfer_leadership_future(0, 1s).get());
    WANT(RAFTZ_NULL_ARG, node.transfer_leadership_queued(0, 1s, queue, nullptr));
    WANT(RAFTZ_NULL_ARG, node.step_down(1s, done));
    WANT(RAFTZ_NULL_ARG, node.step_down_wait(1s));
    WANT(RAFTZ_NULL_ARG, node.step_down_future(1s).get());
    WANT(RAFTZ_NULL_ARG, node.step_down_queued(1s, queue, nullptr));
    WANT(RAFTZ_NULL_ARG, node.stop());
    WANT(RAFTZ_NULL_ARG, node.campaign());
    WANT(RAFTZ_NULL_ARG, node.snapshot(1s));
    WANT(RAFTZ_NULL_ARG, node.wait_for_leader(1s));
    WANT(RAFTZ_NULL_ARG, node.wait_for_applied(1, 1s));
    WANT(RAFTZ_NULL_ARG, node.listen_address());
    WANT(RAFTZ_NULL_ARG, node.state());
    WANT(RAFTZ_NULL_ARG, node.metrics());
    WANT(RAFTZ_NULL_ARG, node.metrics_peer(1));
    WANT(RAFTZ_NULL_ARG, node.metrics_text());
    WANT(RAFTZ_NULL_ARG, raftz::watch().next(node, 1s));
    WANT(RAFTZ_NULL_ARG, queue.next());
    WANT(RAFTZ_NULL_ARG, queue.close());
    CHECK(queue.fd() == -1 && queue.dropped() == 0);

    auto state = OK(kept_node.state());
    const auto kept_state = std::move(state);
    CHECK(state.info().node_id == 0 && state.fault().empty() && state.peers().empty());
    CHECK(kept_state.info().node_id == 1);
    auto answer = OK(raftz::kv::answer::of(
        const_cast<raftz::node &>(kept_node).propose_wait(raftz::kv::set("a", "b"))));
    const auto kept_answer = std::move(answer);
    CHECK(answer.value().empty() && answer.info().count == 0);
    WANT(RAFTZ_NULL_ARG, answer.entry(0));
    raftz::event none;
    CHECK(none.kind() == 0 && none.text().empty() && none.outcomes().empty());

    /* A network that is gone is not TCP. */
    WANT(RAFTZ_NULL_ARG, raftz::node::start(config, in(network)));
    const auto kept_config = std::move(config);
    WANT(RAFTZ_NULL_ARG, raftz::node::start(config, in(kept_network)));
    WANT(RAFTZ_NULL_ARG, raftz::node::bootstrap(config));
    WANT(RAFTZ_NULL_ARG, raftz::node::is_formatted(config));
    WANT(RAFTZ_NULL_ARG, config.get("seed"));
    CHECK(config.keys().empty());
    config.on_failure([](std::string_view, std::string_view) {});
    config.on_log(RAFTZ_LOG_INFO, [ends = token(ended)](std::uint32_t, std::string_view) {});
    CHECK(ended.now() == 2);
    WANT(RAFTZ_NULL_ARG, config.check());
}

static void configurations() {
    auto config = configured(1, 1);
    OK(config.check());
    CHECK(OK(config.get("node_id")) == "1" && OK(config.get("forward")) == "true");
    config.set("forward", false).set("seed", "random").set("segment_bytes", std::string("1m"));
    config.memory().listen_address("127.0.0.1:0");
    CHECK(OK(config.get("forward")) == "false" && OK(config.get("segment_bytes")) == "1048576");
    CHECK(config.keys().size() > 20);
    WANT(RAFTZ_CONFIG, config.get("sead"));
    WANT(RAFTZ_CONFIG, configured(1, 1).set("heartbeat_interval_ms", -1).check());

    /* The first mistake is the one that is told, wherever the configuration is used. */
    config.set("snapshots_kept", "many").set("no such key", 1);
    for (const raftz::error &why :
         {config.check().error(), raftz::node::start(config).error(),
          raftz::node::bootstrap(config).error(), raftz::node::is_formatted(config).error()}) {
        CHECK(why.status() == RAFTZ_CONFIG && has(why.message(), "snapshots_kept"));
    }
    WANT(RAFTZ_INVALID_ARG, raftz::config(0, "c1").check());
    WANT(RAFTZ_CONFIG, raftz::config(1, "no number").check());
    WANT(RAFTZ_NULL_ARG, raftz::config(1, nullptr).check());
    WANT(RAFTZ_BAD_UTF8, configured(1, 1).directory("\xff").check());
    WANT(RAFTZ_UNSUPPORTED,
         configured(1, 1).on_event(std::uint64_t{1} << 63, [](const raftz_event_info &) {}).check());
    WANT(RAFTZ_INVALID_ARG, configured(1, 1).on_log(99, [](std::uint32_t, std::string_view) {}).check());
    WANT(RAFTZ_NULL_ARG,
         configured(1, 1).on_event(RAFTZ_EVENTS_ALL, std::function<void(const raftz_event_info &)>()).check());
    void (*no_function)(std::uint32_t, std::string_view) = nullptr;
    WANT(RAFTZ_NULL_ARG, configured(1, 1).on_log(RAFTZ_LOG_INFO, no_function).check());
}

static void arguments() {
    auto config = configured(1, 1);
    const auto network = OK(raftz::network::make());
    WANT(RAFTZ_NULL_ARG, raftz::node::start(config, nullptr, in(network)));
    auto node = OK(raftz::node::start(config, in(network)));
    OK(node.wait_for_leader(1min));
    WANT(RAFTZ_NULL_ARG, node.propose("x", std::function<void(const raftz::outcome &)>()));
    void (*no_function)(const raftz::outcome &) = nullptr;
    WANT(RAFTZ_NULL_ARG, node.propose("x", no_function));
    raftz::propose_options odd;
    odd.forward = 77;
    WANT(RAFTZ_INVALID_ARG, node.propose_wait("x", odd));
    raftz::read_options level;
    level.level = 77;
    WANT(RAFTZ_INVALID_ARG, node.read_wait("x", level));
    raftz::propose_options late;
    late.timeout = -5s;
    CHECK(late.native().timeout_ms == 1);
    CHECK(raftz::propose_options().native().timeout_ms == 0);
    late.timeout = raftz::forever;
    CHECK(late.native().timeout_ms == RAFTZ_WAIT_FOREVER);
    WANT(RAFTZ_INVALID_ARG, node.metrics_peer(0));
    WANT(RAFTZ_TOO_LARGE, node.propose_wait(std::string(5 << 20, 'x')));
    /* Why a command could not be made is what its proposal says. */
    const auto wrong = raftz::kv::set("", "value").error();
    CHECK(wrong.status() == RAFTZ_INVALID_ARG);
    for (const raftz::error &why :
         {node.propose_wait(raftz::kv::set("", "value")).error(),
          node.propose(raftz::kv::set("", "value"), [](const raftz::outcome &) {}).error(),
          node.propose_future(raftz::kv::set("", "value")).get().error(),
          node.read(raftz::kv::set("", "value"), [](const raftz::outcome &) {}).error()}) {
        CHECK(why.status() == wrong.status() && why.message() == wrong.message());
    }

    /* A socket is taken over, whatever comes of it. */
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    raftz::start_options with_socket;
    with_socket.listen_fd = fd;
    WANT(RAFTZ_NULL_ARG, raftz::node::start(config, nullptr, with_socket));
    CHECK(::close(fd) == -1);
}

int main(int count, char **) {
    watchdog();
    if (count > 1) {
        /* Nobody looked whether there is a value. */
        return static_cast<int>(perhaps(false)->size());
    }
    slices();
    errors();
    results();
    moves();
    after_a_move();
    configurations();
    arguments();
    return 0;
}
