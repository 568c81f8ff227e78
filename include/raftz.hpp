/**
 * \file raftz.hpp
 * \brief raftz for C++17 and later: raftz.h with owners, results and classes. Nothing to link beyond libraftz.
 *
 * SPDX-License-Identifier: MIT
 *
 * Each class owns one handle of raftz.h, can be moved and not copied, and frees the handle when it ends. Its
 * native() is the C pointer, so that whatever raftz.h can do can be done with it. A method does what the C function
 * of its name does: threads, blocking, and what may be called inside callbacks are said there. An object that was
 * moved from holds NULL: its methods give RAFTZ_NULL_ARG, or nothing.
 *
 * Nothing here throws, but for what the standard library does when memory runs out, and the header works under
 * -fno-exceptions. What fails gives a raftz::result with a raftz::error in it. An exception that leaves a callback of
 * the program ends there: from a machine it becomes its failure, with its words; others are told to
 * config::on_failure().
 *
 * What is compiled with exceptions and what is compiled without do not share these classes: they have different
 * names for the linker, for one of them would not catch.
 */
#ifndef RAFTZ_HPP
#define RAFTZ_HPP

#if !defined(__cplusplus) || __cplusplus < 201703L
#error "raftz.hpp needs C++17; raftz.h does with less"
#endif

#include <raftz.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <unistd.h>

/** \brief All of raftz for C++. */
namespace raftz {
#if !defined(__cpp_exceptions)
inline namespace without_exceptions {
#endif

/** \brief A timeout in milliseconds. */
using milliseconds = std::chrono::milliseconds;

/** \brief A timeout: as long as it takes. */
inline constexpr milliseconds forever = milliseconds::max();

/**
 * \brief Bytes that somebody else owns: text, a string, a vector of bytes, or a pointer and a length.
 *
 * As an argument it is read during the call; as a result it lives as long as what gave it.
 */
class slice {
  public:
    /** \brief No bytes. */
    slice() noexcept : raw_{nullptr, 0} {}
    /** \brief The same bytes. */
    slice(raftz_slice raw) noexcept : raw_(raw) {}
    /** \brief Text up to its NUL; a null pointer is no bytes. */
    slice(const char *text) noexcept : raw_(raftz_text(text)) {}
    /** \brief So many bytes from there. */
    slice(const void *data, std::size_t size) noexcept
        : raw_{static_cast<const std::uint8_t *>(data), size} {}
    /** \brief What a string, a vector or an array of bytes holds. */
    template <class C, class E = std::remove_pointer_t<decltype(std::declval<const C &>().data())>,
              class = std::enable_if_t<sizeof(E) == 1 && std::is_trivially_copyable_v<E>>>
    slice(const C &container) noexcept : slice(container.data(), container.size()) {}

    /** \brief The first byte. */
    const std::uint8_t *data() const noexcept { return raw_.data; }
    /** \brief How many. */
    std::size_t size() const noexcept { return raw_.len; }
    /** \brief Whether there are none. */
    bool empty() const noexcept { return raw_.len == 0; }
    /** \brief The bytes as text, which lives as long as they do. */
    std::string_view text() const noexcept {
        return empty() ? std::string_view()
                       : std::string_view(reinterpret_cast<const char *>(raw_.data), raw_.len);
    }
    /** \brief A copy of the bytes. */
    std::string str() const { return std::string(text()); }
    /** \brief As C has it. */
    raftz_slice native() const noexcept { return raw_; }

    /** \brief Whether the bytes are equal. */
    friend bool operator==(slice one, slice other) noexcept { return one.text() == other.text(); }
    /** \brief Whether they are not. */
    friend bool operator!=(slice one, slice other) noexcept { return !(one == other); }

  private:
    raftz_slice raw_;
};

/**
 * \brief Why something failed.
 *
 * A program makes one to say that a callback of its own fails.
 */
class error {
  public:
    /** \brief For callbacks: a failure with its words. */
    explicit error(std::string message) : error(RAFTZ_CALLBACK_FAILED, std::move(message)) {}

    /** \brief A failure with a status and its words. RAFTZ_OK is none, and becomes RAFTZ_CALLBACK_FAILED. */
    error(raftz_status status, std::string message)
        : status_(status == RAFTZ_OK ? RAFTZ_CALLBACK_FAILED : status),
          message_(std::move(message)) {}

    /** \brief Why a call was not done, as its outcome tells. */
    explicit error(const raftz_outcome &outcome)
        : error(outcome.status, slice(outcome.message).str()) {
        leader_id_ = outcome.leader_id;
    }

    /** \brief The status and the error object of a failed call of C; the object is freed. */
    static error take(raftz_status status, raftz_error *raw) {
        const std::unique_ptr<raftz_error, void (*)(raftz_error *)> owner(raw, raftz_error_free);
        error taken(status, raftz_error_message(raw));
        if (raw != nullptr) {
            taken.leader_id_ = raftz_error_leader_id(raw);
            taken.os_errno_ = raftz_error_os_errno(raw);
        }
        return taken;
    }

    /** \brief What the failed call returned. */
    raftz_status status() const noexcept { return status_; }
    /** \brief The status's name, such as "RAFTZ_BUSY". */
    const char *name() const noexcept { return raftz_status_name(status_); }
    /** \brief What went wrong, where, and what to do about it: one line of English. */
    const std::string &message() const noexcept { return message_; }
    /** \brief The node that leads, as far as is known; else 0. */
    std::uint64_t leader_id() const noexcept { return leader_id_; }
    /** \brief The system's errno behind the failure; 0 if there is none. */
    int os_errno() const noexcept { return os_errno_; }
    /** \brief Whether the same call may well succeed a little later; it has had no effect yet. */
    bool is_retriable() const noexcept { return raftz_status_is_retriable(status_); }
    /** \brief Whether the object that was called is of no more use. */
    bool is_fatal() const noexcept { return raftz_status_is_fatal(status_); }
    /** \brief Whether the call may have had its effect, or may still have it. */
    bool is_outcome_unknown() const noexcept { return raftz_status_is_outcome_unknown(status_); }

  private:
    template <class> friend class result;

    /* The one that is none: what result::error() gives where nothing failed. */
    error() noexcept = default;

    static const error &none() noexcept {
        static const error none;
        return none;
    }

    raftz_status status_ = RAFTZ_OK;
    int os_errno_ = 0;
    std::uint64_t leader_id_ = 0;
    std::string message_;
};

/** \brief What is no part of the interface. */
namespace detail {

/* A program that uses a value where there is none has a mistake that cannot be gone on from. */
[[noreturn]] inline void no_value(const error &why) noexcept {
    std::fprintf(stderr, "raftz: there is no value, for the call failed: %s: %s\n", why.name(),
                 why.message().c_str());
    std::terminate();
}

} // namespace detail

/**
 * \brief A value, or the error that there is instead. Ask it as a condition before the value is used.
 *
 * The value of a result that has none is a mistake of the program: the error is written to standard error, and
 * std::terminate() is called.
 */
template <class T> class [[nodiscard]] result {
  public:
    /** \brief A value, or what becomes one. */
    template <class U = T, class = std::enable_if_t<std::is_convertible_v<U &&, T> &&
                                                    !std::is_same_v<std::decay_t<U>, result> &&
                                                    !std::is_same_v<std::decay_t<U>, raftz::error>>>
    result(U &&value) : held_(std::in_place_index<0>, std::forward<U>(value)) {}
    /** \brief An error. */
    result(raftz::error error) : held_(std::in_place_index<1>, std::move(error)) {}

    /** \brief Whether there is a value. */
    bool has_value() const noexcept { return held_.index() == 0; }
    /** \brief Whether there is a value. */
    explicit operator bool() const noexcept { return has_value(); }
    /** \brief Why there is no value; where there is one, an error of status RAFTZ_OK. */
    const raftz::error &error() const noexcept {
        const raftz::error *held = std::get_if<1>(&held_);
        return held == nullptr ? raftz::error::none() : *held;
    }

    /** \brief The value. */
    T &value() & noexcept { return *checked(); }
    /** \brief The value. */
    const T &value() const & noexcept { return *const_cast<result *>(this)->checked(); }
    /** \brief The value, to be moved from. */
    T &&value() && noexcept { return std::move(*checked()); }
    /** \brief The value, or another where there is none. */
    template <class U> T value_or(U &&otherwise) && {
        return has_value() ? std::move(*checked()) : static_cast<T>(std::forward<U>(otherwise));
    }
    /** \brief The value. */
    T &operator*() & noexcept { return *checked(); }
    /** \brief The value. */
    const T &operator*() const & noexcept { return value(); }
    /** \brief The value, to be moved from. */
    T &&operator*() && noexcept { return std::move(*checked()); }
    /** \brief The value's members. */
    T *operator->() noexcept { return checked(); }
    /** \brief The value's members. */
    const T *operator->() const noexcept { return &value(); }

  private:
    T *checked() noexcept {
        T *held = std::get_if<0>(&held_);
        if (held == nullptr) {
            detail::no_value(error());
        }
        return held;
    }

    std::variant<T, raftz::error> held_;
};

/** \brief Success, or the error that there is instead. */
template <> class [[nodiscard]] result<void> {
  public:
    /** \brief Success. */
    result() noexcept = default;
    /** \brief An error. */
    result(raftz::error error) : error_(std::move(error)) {}

    /** \brief Whether it succeeded. */
    bool has_value() const noexcept { return !error_.has_value(); }
    /** \brief Whether it succeeded. */
    explicit operator bool() const noexcept { return has_value(); }
    /** \brief Why not; after success, an error of status RAFTZ_OK. */
    const raftz::error &error() const noexcept {
        return error_.has_value() ? *error_ : raftz::error::none();
    }

  private:
    std::optional<raftz::error> error_;
};

namespace detail {

/* Runs a function of the program's. An exception ends here, and `thrown` makes of its words what the caller is
 * given instead. */
template <class Body, class Thrown>
auto guarded(Body &&body, Thrown &&thrown) noexcept -> decltype(body()) {
#if defined(__cpp_exceptions)
    try {
        return body();
    } catch (const std::exception &exception) {
        return thrown(exception.what());
    } catch (...) {
        return thrown("an exception that is no std::exception");
    }
#else
    static_cast<void>(thrown);
    return body();
#endif
}

/* Where failures of callbacks go that C has no way for. Shared by a configuration, its nodes, and every callback
 * of theirs, because the last of these may outlive the others. */
class reports {
  public:
    using function = std::function<void(std::string_view, std::string_view)>;

    void set(function told) {
        auto shared = std::make_shared<const function>(std::move(told));
        const std::lock_guard<std::mutex> lock(lock_);
        told_.swap(shared);
    }

    void tell(const char *where, std::string_view what) const noexcept {
        guarded(
            [&] {
                std::shared_ptr<const function> told;
                {
                    const std::lock_guard<std::mutex> lock(lock_);
                    told = told_;
                }
                if (told != nullptr && *told) {
                    (*told)(where, what);
                } else {
                    std::fprintf(stderr, "raftz: %s failed: %.*s\n", where,
                                 static_cast<int>(what.size()), what.data());
                }
            },
            [](const char *) {});
    }

  private:
    mutable std::mutex lock_;
    std::shared_ptr<const function> told_;
};

/* Calls a function of C that takes a place for its error. */
template <class Call> result<void> called(Call &&call) {
    raftz_error *raw = nullptr;
    const raftz_status status = call(&raw);
    if (status != RAFTZ_OK) {
        return error::take(status, raw);
    }
    return {};
}

/* The same of one that gives something, in a place that begins as `value`. */
template <class T, class Call> result<T> given(T value, Call &&call) {
    raftz_error *raw = nullptr;
    const raftz_status status = call(&value, &raw);
    if (status != RAFTZ_OK) {
        return error::take(status, raw);
    }
    return value;
}

/* The same of one that makes an object, for its owner. */
template <class Owner, class Call> result<Owner> made(Call &&call) {
    typename Owner::native_type *object = nullptr;
    raftz_error *raw = nullptr;
    const raftz_status status = call(&object, &raw);
    if (status != RAFTZ_OK) {
        return error::take(status, raw);
    }
    return Owner(object);
}

/* Of a wait: no less than nothing, and no more than for ever. */
inline std::uint32_t wait_ms(milliseconds timeout) noexcept {
    if (timeout.count() <= 0) {
        return 0;
    }
    return timeout.count() >= RAFTZ_WAIT_FOREVER ? RAFTZ_WAIT_FOREVER
                                                 : static_cast<std::uint32_t>(timeout.count());
}

/* In options, where 0 means the default: what has passed already is not that. */
inline std::uint32_t option_ms(milliseconds timeout) noexcept {
    return timeout.count() < 0 ? 1 : wait_ms(timeout);
}

template <class F> struct is_std_function : std::false_type {};
template <class R, class... A> struct is_std_function<std::function<R(A...)>> : std::true_type {};

/* Whether there is nothing to be called. */
template <class F> bool is_null(const F &function) noexcept {
    if constexpr (std::is_pointer_v<F> || is_std_function<F>::value) {
        return !function;
    } else {
        static_cast<void>(function);
        return false;
    }
}

inline error null(const char *name) {
    return error(RAFTZ_NULL_ARG, std::string(name) + " must not be null");
}

/* An array of C's, whose elements are shown as `Shown`. */
template <class Shown, class Native> class range {
  public:
    class iterator {
      public:
        using iterator_category = std::input_iterator_tag;
        using value_type = Shown;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = Shown;

        explicit iterator(const Native *at) noexcept : at_(at) {}
        Shown operator*() const noexcept { return Shown(*at_); }
        iterator &operator++() noexcept {
            ++at_;
            return *this;
        }
        iterator operator++(int) noexcept { return iterator(at_++); }
        friend bool operator==(iterator one, iterator other) noexcept { return one.at_ == other.at_; }
        friend bool operator!=(iterator one, iterator other) noexcept { return one.at_ != other.at_; }

      private:
        const Native *at_;
    };

    range(const Native *first, std::size_t size) noexcept : first_(first), size_(size) {}
    iterator begin() const noexcept { return iterator(first_); }
    iterator end() const noexcept { return iterator(first_ + size_); }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    Shown operator[](std::size_t at) const noexcept { return Shown(first_[at]); }
    const Native *native() const noexcept { return first_; }

  private:
    const Native *first_;
    std::size_t size_;
};

} // namespace detail

/** \brief Owns a handle of C: moved and not copied, freed once. */
template <class T, void (*Free)(T *)> class handle {
  public:
    /** \brief The type in C. */
    using native_type = T;

    /** \brief Takes a handle over; NULL is nothing. */
    explicit handle(T *object = nullptr) noexcept : object_(object) {}

    /** \brief The C pointer, still owned; NULL if there is nothing. */
    T *native() const noexcept { return object_.get(); }
    /** \brief Whether there is something. */
    explicit operator bool() const noexcept { return object_ != nullptr; }
    /** \brief The C pointer, owned by the caller from now on. */
    T *release() noexcept { return object_.release(); }
    /** \brief Frees the handle now. Twice is nothing. */
    void reset() noexcept { object_.reset(); }

  private:
    struct freer {
        void operator()(T *object) const noexcept { Free(object); }
    };
    std::unique_ptr<T, freer> object_;
};

/** \brief Bytes that the library keeps: what it gives, or what is handed over without a copy. */
class bytes : public handle<raftz_bytes, raftz_bytes_free> {
  public:
    using handle::handle;

    /** \brief A copy of bytes. */
    static result<bytes> copy(slice data) {
        return detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
            return raftz_bytes_copy(data.native(), out, failure);
        });
    }

    /** \brief A string or a vector of bytes, taken over without a copy, and freed on any thread. */
    template <class C> static result<bytes> adopt(C content) {
        static_assert(!std::is_pointer_v<C> && !std::is_same_v<C, std::string_view> &&
                          !std::is_same_v<C, slice>,
                      "only what owns its bytes can be adopted");
        auto owned = std::make_unique<C>(std::move(content));
        auto made = detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
            return raftz_bytes_wrap(
                slice(*owned).native(), [](void *context) { delete static_cast<C *>(context); },
                owned.get(), out, failure);
        });
        if (made) {
            static_cast<void>(owned.release());
        }
        return made;
    }

    /** \brief The bytes. */
    slice view() const noexcept { return raftz_bytes_slice(native()); }
    /** \brief The first. */
    const std::uint8_t *data() const noexcept { return view().data(); }
    /** \brief How many. */
    std::size_t size() const noexcept { return view().size(); }
};

/**
 * \brief What is proposed or asked: bytes of the caller's, which are copied, or bytes that the library keeps, which
 * are handed over. If those could not be made, the call gives the error that says why.
 */
class payload {
  public:
    /** \brief Bytes of the caller's. */
    template <class T, class = std::enable_if_t<std::is_convertible_v<const T &, slice>>>
    payload(const T &data) noexcept : view_(data) {}
    /** \brief Text. */
    payload(const char *text) noexcept : view_(text) {}
    /** \brief Bytes that are handed over. */
    payload(bytes &&data) noexcept : owned_(std::move(data)), view_(owned_.view()) {}
    /** \brief Bytes that are handed over, such as a command of raftz::kv, or why there are none. */
    payload(result<bytes> &&data) {
        if (data) {
            owned_ = std::move(*data);
            view_ = owned_.view();
        } else {
            why_ = data.error();
        }
    }

  private:
    friend class node;

    bytes owned_;
    slice view_;
    std::optional<error> why_;
};

/** \brief What became of a command that was waited for, or of a read. */
class reply {
  public:
    /** \brief An answer, with what is known of its entry. */
    reply(bytes content, std::uint64_t index, std::uint64_t term, std::uint32_t flags) noexcept
        : content_(std::move(content)), index_(index), term_(term), flags_(flags) {}

    /** \brief Index of the command's entry; of a read 0. */
    std::uint64_t index() const noexcept { return index_; }
    /** \brief Term of the command's entry; of a read 0. */
    std::uint64_t term() const noexcept { return term_; }
    /** \brief Whether the state machine turned the command down, alike on every node; the bytes say why. */
    bool is_rejected() const noexcept { return (flags_ & RAFTZ_OUTCOME_REJECTED) != 0; }
    /** \brief RAFTZ_OUTCOME_REJECTED or 0. */
    std::uint32_t flags() const noexcept { return flags_; }
    /** \brief What the state machine answered; it lives as long as this. */
    slice view() const noexcept { return content_.view(); }
    /** \brief The same as text. */
    std::string_view text() const noexcept { return view().text(); }
    /** \brief A copy of it. */
    std::string str() const { return view().str(); }

  private:
    bytes content_;
    std::uint64_t index_;
    std::uint64_t term_;
    std::uint32_t flags_;
};

/** \brief How a call ended, inside a completion: it lives until that returns, or as long as its event. */
class outcome {
  public:
    /** \brief The outcome that C tells. */
    explicit outcome(const raftz_outcome &raw) noexcept : raw_(&raw) {}

    /** \brief Whether it was committed and applied, or answered. */
    bool is_done() const noexcept { return raw_->status == RAFTZ_OK; }
    /** \brief Whether it was committed and applied, or answered. */
    explicit operator bool() const noexcept { return is_done(); }
    /** \brief RAFTZ_OK, or why it was not done. */
    raftz_status status() const noexcept { return raw_->status; }
    /** \brief Whether the state machine turned the command down; the reply says why. */
    bool is_rejected() const noexcept { return (raw_->flags & RAFTZ_OUTCOME_REJECTED) != 0; }
    /** \brief Whether it may have had its effect, or may still have it. */
    bool is_outcome_unknown() const noexcept { return (raw_->flags & RAFTZ_OUTCOME_UNKNOWN) != 0; }
    /** \brief Index of the command's entry, once done; of a read 0. */
    std::uint64_t index() const noexcept { return raw_->index; }
    /** \brief Term of the command's entry, once done; of a read 0. */
    std::uint64_t term() const noexcept { return raw_->term; }
    /** \brief Who leads, where a refusal or the end of a transfer tells it; else 0. */
    std::uint64_t leader_id() const noexcept { return raw_->leader_id; }
    /** \brief What the state machine answered. */
    slice reply() const noexcept { return raw_->reply; }
    /** \brief Why it was not done, in words. */
    std::string_view message() const noexcept { return slice(raw_->message).text(); }
    /** \brief As C has it. */
    const raftz_outcome &native() const noexcept { return *raw_; }

    /** \brief A copy that may be kept: the reply, or the error. */
    result<raftz::reply> to_result() const {
        if (!is_done()) {
            return error(*raw_);
        }
        auto content = bytes::copy(raw_->reply);
        if (!content) {
            return content.error();
        }
        return raftz::reply(std::move(*content), raw_->index, raw_->term,
                            raw_->flags & RAFTZ_OUTCOME_REJECTED);
    }

  private:
    const raftz_outcome *raw_;
};

/** \brief How the commands of a batch ended, in their order: begin(), end(), size() and []. */
using outcomes = detail::range<outcome, raftz_outcome>;

/** \brief One committed command. */
struct command {
    /** \brief What C tells of it. */
    explicit command(const raftz_command &raw) noexcept
        : index(raw.index), term(raw.term), log_time_us(raw.log_time_us), data(raw.data) {}

    /** \brief Index of its entry. Indexes grow but have gaps. */
    std::uint64_t index;
    /** \brief Term of its entry. */
    std::uint64_t term;
    /** \brief The cluster's clock when it was appended, in microseconds; it never decreases. */
    std::uint64_t log_time_us;
    /** \brief The bytes that were proposed; they live until apply returns. */
    slice data;
};

/** \brief Commands in the order of the log: begin(), end(), size() and []. */
using commands = detail::range<command, raftz_command>;

/** \brief Takes the answers to a batch of commands: exactly one for each, in their order. */
class replies {
  public:
    /** \brief Over what C gives. */
    explicit replies(raftz_replies *raw) noexcept : raw_(raw) {}
    /** \brief Answers the next command; copied. */
    void push(slice reply) noexcept { static_cast<void>(raftz_replies_push(raw_, reply.native())); }
    /** \brief Turns the next command down, with a reason: an ordinary answer, alike on every node. */
    void reject(slice reason) noexcept {
        static_cast<void>(raftz_replies_reject(raw_, reason.native()));
    }
    /** \brief The C pointer. */
    raftz_replies *native() const noexcept { return raw_; }

  private:
    raftz_replies *raw_;
};

/** \brief Takes bytes from a query or a snapshot. */
class sink {
  public:
    /** \brief Over what C gives. */
    explicit sink(raftz_sink *raw) noexcept : raw_(raw) {}
    /** \brief Writes bytes; copied. */
    void write(slice data) noexcept { static_cast<void>(raftz_sink_write(raw_, data.native())); }
    /** \brief Of a query alone: makes what is written a rejection. */
    void reject() noexcept { static_cast<void>(raftz_sink_reject(raw_)); }
    /** \brief The C pointer. */
    raftz_sink *native() const noexcept { return raw_; }

  private:
    raftz_sink *raw_;
};

/** \brief Gives restore the bytes of a snapshot, from the front. */
class source {
  public:
    /** \brief Over what C gives. */
    explicit source(raftz_source *raw) noexcept : raw_(raw) {}

    /** \brief Reads the next bytes, at most `capacity`, at least 1; 0 at the end. */
    result<std::size_t> read(void *buffer, std::size_t capacity) {
        std::size_t count = 0;
        const raftz_status status =
            raftz_source_read(raw_, static_cast<std::uint8_t *>(buffer), capacity, &count);
        if (status != RAFTZ_OK) {
            return error(status, "the snapshot cannot be read");
        }
        return count;
    }

    /** \brief Reads all that is left. */
    result<std::string> read_all() {
        std::string all;
        for (;;) {
            const std::size_t before = all.size();
            all.resize(before + 65536);
            auto count = read(&all[before], 65536);
            if (!count) {
                return count.error();
            }
            all.resize(before + *count);
            if (*count == 0) {
                return all;
            }
        }
    }

    /** \brief The C pointer. */
    raftz_source *native() const noexcept { return raw_; }

  private:
    raftz_source *raw_;
};

/** \brief A frozen state of a machine. It is read on another thread than the machine's, and ended there. */
class snapshot {
  public:
    virtual ~snapshot() = default;
    /** \brief Writes the next piece, of any size. It is called until it writes nothing. */
    virtual result<void> read(sink &piece) = 0;
};

class snapshot_machine;

/**
 * \brief A deterministic state machine: what the cluster keeps one copy of on every node.
 *
 * Everything it does must follow from the commands alone. Its methods are called from one thread at a time. Where
 * they may fail they return an error or, with exceptions, throw: an apply that fails stops this replica, with an
 * event and a fault that carry the words; the process goes on, and so do the other nodes. Blocking calls of raftz are
 * refused in them.
 */
class machine {
  public:
    virtual ~machine() = default;

    /** \brief Applies commands in order, and answers each with replies::push() or replies::reject(). */
    virtual result<void> apply(const commands &batch, replies &answers) = 0;

    /** \brief Answers a question from the present state. A failure is told to the asker alone. */
    virtual result<void> query(slice request, sink &answer) const {
        static_cast<void>(request);
        static_cast<void>(answer);
        return error(RAFTZ_UNSUPPORTED, "this state machine answers no questions");
    }

    /**
     * \brief For a machine that persists itself: the index of the last command in its own storage, stored there at
     * once with what the command did; 0 while there is none. Asked once, by node::start(). Nothing: the machine is
     * rebuilt from the log at every start.
     */
    virtual result<std::optional<std::uint64_t>> applied_index() { return std::nullopt; }

    /** \brief Whether no method ever blocks or takes long; they may then run on the node's event loop. */
    virtual bool never_blocks() const noexcept { return false; }

  private:
    friend class node;
    friend class snapshot_machine;

    /* Itself, if it is one that makes snapshots. */
    virtual snapshot_machine *snapshots() noexcept { return nullptr; }
};

/** \brief A state machine that makes snapshots, so that the log does not grow for ever. */
class snapshot_machine : public machine {
  public:
    /** \brief Freezes the present state, quickly: it is read later, while commands go on. */
    virtual result<std::unique_ptr<raftz::snapshot>> snapshot() = 0;

    /**
     * \brief Replaces the whole state by what a snapshot wrote, on this or another node. It may be called again
     * with the same content. A failure stops this replica, with its words.
     */
    virtual result<void> restore(source &from) = 0;

  private:
    snapshot_machine *snapshots() noexcept final { return this; }
};

namespace detail {

class text_snapshot final : public snapshot {
  public:
    explicit text_snapshot(std::string state) : state_(std::move(state)) {}
    result<void> read(sink &piece) override {
        const std::string_view next = std::string_view(state_).substr(at_, std::size_t{1} << 20);
        piece.write(next);
        at_ += next.size();
        return {};
    }

  private:
    std::string state_;
    std::size_t at_ = 0;
};

/* What a function of the program's gives: nothing counts as success. */
template <class F, class... A> result<void> outcome_of(F &&function, A &&...arguments) {
    if constexpr (std::is_void_v<std::invoke_result_t<F, A...>>) {
        std::invoke(std::forward<F>(function), std::forward<A>(arguments)...);
        return {};
    } else {
        return std::invoke(std::forward<F>(function), std::forward<A>(arguments)...);
    }
}

template <class Apply, class Query> class function_machine final : public machine {
  public:
    function_machine(Apply apply, Query query)
        : apply_(std::move(apply)), query_(std::move(query)) {}
    result<void> apply(const commands &batch, replies &answers) override {
        return outcome_of(apply_, batch, answers);
    }
    result<void> query(slice request, sink &answer) const override {
        return outcome_of(query_, request, answer);
    }

  private:
    Apply apply_;
    Query query_;
};

template <class Apply> class function_machine<Apply, void> final : public machine {
  public:
    explicit function_machine(Apply apply) : apply_(std::move(apply)) {}
    result<void> apply(const commands &batch, replies &answers) override {
        return outcome_of(apply_, batch, answers);
    }

  private:
    Apply apply_;
};

} // namespace detail

/** \brief A snapshot of a state that is written down already. */
inline std::unique_ptr<snapshot> snapshot_of(std::string state) {
    return std::make_unique<detail::text_snapshot>(std::move(state));
}

/** \brief A state machine of one function: `(const commands &, replies &)`, which gives nothing or a result<void>. */
template <class Apply> std::unique_ptr<machine> machine_of(Apply apply) {
    return std::make_unique<detail::function_machine<Apply, void>>(std::move(apply));
}

/** \brief The same with one that answers questions: `(slice, sink &)`, which changes nothing. */
template <class Apply, class Query> std::unique_ptr<machine> machine_of(Apply apply, Query query) {
    return std::make_unique<detail::function_machine<Apply, Query>>(std::move(apply),
                                                                    std::move(query));
}

namespace detail {

/* A machine as C's table of functions. */
struct machine_box {
    std::unique_ptr<machine> owned;
    snapshot_machine *snapshots;
    std::uint64_t applied;

    static machine_box &of(void *box) noexcept { return *static_cast<machine_box *>(box); }

    /* Called within raftz_node_start(), which has a unique_ptr as its user data: what is not taken from there is
     * still the caller's. */
    static raftz_status create(void *user_data, raftz_sink *, void **made) noexcept {
        *made = static_cast<std::unique_ptr<machine_box> *>(user_data)->release();
        return RAFTZ_OK;
    }

    static void destroy(void *box) noexcept { delete &of(box); }

    static raftz_status apply(void *box, const raftz_command *first, std::size_t count,
                              raftz_replies *raw) noexcept {
        return guarded(
            [&] {
                replies answers(raw);
                const result<void> done = of(box).owned->apply(commands(first, count), answers);
                if (!done) {
                    static_cast<void>(
                        raftz_replies_fail(raw, slice(done.error().message()).native()));
                }
                return done.error().status();
            },
            [&](const char *what) {
                static_cast<void>(raftz_replies_fail(raw, raftz_text(what)));
                return raftz_status{RAFTZ_CALLBACK_FAILED};
            });
    }

    static raftz_status query(void *box, raftz_slice request, raftz_sink *raw) noexcept {
        return with_sink(raw, [&](sink &answer) {
            const machine &asked = *of(box).owned;
            return asked.query(request, answer);
        });
    }

    static raftz_status snapshot_begin(void *box, raftz_sink *why, void **made) noexcept {
        return with_sink(why, [&](sink &) -> result<void> {
            auto frozen = of(box).snapshots->snapshot();
            if (!frozen) {
                return frozen.error();
            }
            if (*frozen == nullptr) {
                return error("the state machine gave no snapshot");
            }
            *made = frozen->release();
            return {};
        });
    }

    static raftz_status snapshot_read(void *frozen, raftz_sink *raw) noexcept {
        return with_sink(raw, [&](sink &piece) { return static_cast<snapshot *>(frozen)->read(piece); });
    }

    static void snapshot_end(void *frozen) noexcept { delete static_cast<snapshot *>(frozen); }

    static raftz_status restore(void *box, raftz_source *raw, raftz_sink *why) noexcept {
        return with_sink(why, [&](sink &) {
            source from(raw);
            return of(box).snapshots->restore(from);
        });
    }

    static raftz_status applied_index(void *box, raftz_sink *, std::uint64_t *index) noexcept {
        *index = of(box).applied;
        return RAFTZ_OK;
    }

    template <class Body> static raftz_status with_sink(raftz_sink *raw, Body &&body) noexcept {
        return guarded(
            [&] {
                sink out(raw);
                const result<void> done = body(out);
                if (!done) {
                    static_cast<void>(raftz_sink_fail(raw, slice(done.error().message()).native()));
                }
                return done.error().status();
            },
            [&](const char *what) {
                static_cast<void>(raftz_sink_fail(raw, raftz_text(what)));
                return raftz_status{RAFTZ_CALLBACK_FAILED};
            });
    }

    raftz_machine table() const noexcept {
        raftz_machine table = RAFTZ_MACHINE_INIT;
        table.flags = owned->never_blocks() ? RAFTZ_MACHINE_NEVER_BLOCKS : 0;
        table.create = create;
        table.destroy = destroy;
        table.apply = apply;
        table.query = query;
        if (snapshots != nullptr) {
            table.snapshot_begin = snapshot_begin;
            table.snapshot_read = snapshot_read;
            table.snapshot_end = snapshot_end;
            table.restore = restore;
        }
        return table;
    }
};

/* A completion of the program's: called once, and gone then. */
template <class F> struct completion {
    F done;
    std::shared_ptr<const reports> told;

    static void one(void *user_data, const raftz_outcome *raw) noexcept {
        end(user_data, outcome(*raw));
    }
    static void all(void *user_data, const raftz_outcome *raw, std::size_t count) noexcept {
        end(user_data, outcomes(raw, count));
    }

  private:
    template <class Told> static void end(void *user_data, const Told &ended) noexcept {
        const std::unique_ptr<completion> self(static_cast<completion *>(user_data));
        guarded([&] { static_cast<void>(std::invoke(self->done, ended)); },
                [&](const char *what) { self->told->tell("a completion", what); });
    }
};

/* Hands a completion to a call of C, which has it exactly if it accepts. */
template <class F, class Call>
result<void> completed(F &&done, const std::shared_ptr<const reports> &told, Call &&call) {
    if (is_null(done)) {
        return null("the completion");
    }
    using held = completion<std::decay_t<F>>;
    std::unique_ptr<held> made(new held{std::forward<F>(done), told});
    auto accepted = called([&](raftz_error **failure) { return call(made.get(), failure); });
    if (accepted) {
        /* It may have run and be gone by now. */
        static_cast<void>(made.release());
    }
    return accepted;
}

/* An observer of the program's, of events or log lines. */
template <class F> struct observer {
    F function;
    std::shared_ptr<const reports> told;

    static void event(void *user_data, const raftz_event_info *raw) noexcept {
        observer &self = *static_cast<observer *>(user_data);
        guarded(
            [&] {
                /* Of the library's version, which need not be that of this header. */
                raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
                std::memcpy(&info, raw, std::min(raw->size, sizeof info));
                info.size = sizeof info;
                static_cast<void>(std::invoke(self.function, std::as_const(info)));
            },
            [&](const char *what) { self.told->tell("an event's observer", what); });
    }
    static void line(void *user_data, std::uint32_t level, raftz_slice raw) noexcept {
        observer &self = *static_cast<observer *>(user_data);
        guarded([&] { static_cast<void>(std::invoke(self.function, level, slice(raw).text())); },
                [&](const char *what) { self.told->tell("a log line's observer", what); });
    }
    static void destroy(void *user_data) noexcept { delete static_cast<observer *>(user_data); }
};

} // namespace detail

/** \brief How a queue is to be; 0 is the default. */
struct queue_options {
    /** \brief Most calls that may be under way or wait to be taken; 0: 65536. */
    std::uint64_t calls_max = 0;
    /** \brief Most events of nodes that may wait to be taken; 0: 4096. */
    std::uint64_t events_max = 0;
};

/** \brief Something taken from a queue: a completion or an event of a node. */
class event : public handle<raftz_event, raftz_event_free> {
  public:
    using handle::handle;

    /** \brief What it says; its words live as long as this. All zero if this was moved from. */
    raftz_event_info info() const noexcept {
        raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
        static_cast<void>(raftz_event_get(native(), &info, nullptr));
        return info;
    }
    /** \brief Its kind, RAFTZ_EVENT_… */
    std::uint32_t kind() const noexcept { return info().kind; }
    /** \brief Its words. */
    std::string_view text() const noexcept { return slice(info().text).text(); }
    /** \brief Of a completion: how the calls ended. They live as long as this. */
    raftz::outcomes outcomes() const noexcept {
        const raftz_event_info seen = info();
        return raftz::outcomes(seen.outcomes, seen.outcome_count);
    }
};

/** \brief A queue into which completions and events of nodes are put; see raftz_queue. */
class queue : public handle<raftz_queue, raftz_queue_free> {
  public:
    using handle::handle;

    /** \brief Makes a queue. */
    static result<queue> make(const queue_options &options = queue_options()) {
        raftz_queue_opts opts = RAFTZ_QUEUE_OPTS_INIT;
        opts.calls_max = options.calls_max;
        opts.events_max = options.events_max;
        return detail::made<queue>([&](raftz_queue **out, raftz_error **failure) {
            return raftz_queue_new(&opts, out, failure);
        });
    }

    /** \brief A descriptor that is readable while the queue holds something: for poll and epoll. */
    int fd() const noexcept { return raftz_queue_fd(native()); }
    /** \brief Takes the oldest thing. RAFTZ_EMPTY and RAFTZ_CLOSED are errors here: `while (auto it = queue.next())`. */
    result<event> next(milliseconds timeout = milliseconds::zero()) {
        return detail::made<event>([&](raftz_event **out, raftz_error **failure) {
            return raftz_queue_next(native(), detail::wait_ms(timeout), out, failure);
        });
    }
    /** \brief How many events of nodes were dropped, because nobody took them in time. */
    std::uint64_t dropped() const noexcept { return raftz_queue_dropped(native()); }
    /** \brief Ends those who take from it, once it is empty. Twice is nothing. */
    result<void> close() {
        return detail::called(
            [&](raftz_error **failure) { return raftz_queue_close(native(), failure); });
    }
};

/** \brief A set of kinds of events: `event_kinds(RAFTZ_EVENT_ROLE, RAFTZ_EVENT_FAULTED)`. */
template <class... Kind> constexpr std::uint64_t event_kinds(Kind... kinds) noexcept {
    return (std::uint64_t{0} | ... | (std::uint64_t{1} << kinds));
}

/**
 * \brief A node's configuration; see raftz_config for its keys.
 *
 * One that cannot be set is remembered: the first such error is what check(), node::is_formatted(),
 * node::bootstrap() and node::start() give, so that setters need not be looked at one by one.
 */
class config : public handle<raftz_config, raftz_config_free> {
  public:
    /** \brief A configuration with all defaults, of a node with this id, from 1, in a cluster with that id. */
    config(std::uint64_t node_id, const char *cluster_id)
        : told_(std::make_shared<detail::reports>()) {
        raftz_config *made = nullptr;
        note(detail::called([&](raftz_error **failure) {
            return raftz_config_new(node_id, cluster_id, &made, failure);
        }));
        handle::operator=(handle(made));
    }

    /** \brief Sets a key from text. */
    config &set(const char *key, const char *text) {
        return noted([&](raftz_error **failure) {
            return raftz_config_set(native(), key, text, failure);
        });
    }
    /** \brief Sets a key from text. */
    config &set(const char *key, const std::string &text) { return set(key, text.c_str()); }
    /** \brief Sets a key whose value is a number, or true or false. */
    template <class N, class = std::enable_if_t<std::is_integral_v<N>>>
    config &set(const char *key, N value) {
        return noted([&](raftz_error **failure) -> raftz_status {
            if constexpr (std::is_same_v<N, bool>) {
                return raftz_config_set_bool(native(), key, value, failure);
            } else if (value < 0) {
                /* The library has no such numbers; as text it says which it has. */
                return raftz_config_set(native(), key, std::to_string(value).c_str(), failure);
            } else {
                return raftz_config_set_number(native(), key, static_cast<std::uint64_t>(value),
                                               failure);
            }
        });
    }
    /** \brief Sets where the node listens: `host:port`. */
    config &listen_address(const std::string &address) {
        return noted([&](raftz_error **failure) {
            return raftz_config_set_listen_address(native(), address.c_str(), failure);
        });
    }
    /** \brief Adds a founding member. Every founder lists all of them, itself included. */
    config &founder(std::uint64_t node_id, const std::string &address) {
        return noted([&](raftz_error **failure) {
            return raftz_config_add_founder(native(), node_id, address.c_str(), failure);
        });
    }
    /** \brief Keeps the log in a directory of its own: it survives a power cut. */
    config &directory(const std::string &path) {
        return noted([&](raftz_error **failure) {
            return raftz_config_set_directory(native(), path.c_str(), failure);
        });
    }
    /** \brief Keeps the log in memory: it is gone with the process. */
    config &memory() {
        return noted(
            [&](raftz_error **failure) { return raftz_config_set_memory(native(), failure); });
    }

    /**
     * \brief Has a function called with events of these kinds: `(const raftz_event_info &)`, on the node's
     * callback thread. It is destroyed once neither this nor a node started with it needs it any more.
     */
    template <class F> config &on_event(std::uint64_t kinds, F &&function) {
        return observed(std::forward<F>(function), [&](auto *made, raftz_error **failure) {
            using held = std::remove_pointer_t<decltype(made)>;
            return raftz_config_set_event_callback(native(), kinds, held::event, made,
                                                   held::destroy, failure);
        });
    }
    /** \brief Has events of these kinds put into a queue, instead of a function. */
    config &on_event(std::uint64_t kinds, queue &to) {
        return noted([&](raftz_error **failure) {
            return raftz_config_set_event_queue(native(), kinds, to.native(), failure);
        });
    }
    /**
     * \brief Has a function called with log lines that matter so much, RAFTZ_LOG_…, or more: `(std::uint32_t level,
     * std::string_view line)`, on the node's threads, several at once. Destroyed as that of on_event().
     */
    template <class F> config &on_log(std::uint32_t level, F &&function) {
        return observed(std::forward<F>(function), [&](auto *made, raftz_error **failure) {
            using held = std::remove_pointer_t<decltype(made)>;
            return raftz_config_set_log(native(), level, held::line, made, held::destroy, failure);
        });
    }
    /**
     * \brief Has a function told of failures of callbacks that have nowhere else to go: `(std::string_view where,
     * std::string_view what)`, on whatever thread it happens.
     *
     * These are exceptions that leave a completion or an observer, which otherwise changes nothing. Without one, a
     * line on standard error says the same. It counts for nodes that run already, too.
     */
    config &on_failure(std::function<void(std::string_view, std::string_view)> function) {
        if (told_ != nullptr) {
            told_->set(std::move(function));
        }
        return *this;
    }

    /** \brief A key's present value, as set() takes it. */
    result<std::string> get(const char *key) const {
        auto text = detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
            return raftz_config_get(native(), key, out, failure);
        });
        if (!text) {
            return text.error();
        }
        return text->view().str();
    }
    /** \brief The keys that there are. */
    std::vector<std::string> keys() const {
        std::vector<std::string> keys;
        while (const char *key = raftz_config_key(native(), keys.size())) {
            keys.emplace_back(key);
        }
        return keys;
    }
    /** \brief Whether all could be set, and every value is right and agrees with the others. */
    result<void> check() const {
        if (why_.has_value()) {
            return *why_;
        }
        return detail::called(
            [&](raftz_error **failure) { return raftz_config_validate(native(), failure); });
    }

  private:
    friend class node;

    void note(const result<void> &done) {
        if (!done && !why_.has_value()) {
            why_ = done.error();
        }
    }
    template <class Call> config &noted(Call &&call) {
        note(detail::called(std::forward<Call>(call)));
        return *this;
    }
    template <class F, class Call> config &observed(F &&function, Call &&call) {
        if (detail::is_null(function)) {
            note(detail::null("the observer"));
            return *this;
        }
        using held = detail::observer<std::decay_t<F>>;
        std::unique_ptr<held> made(new held{std::forward<F>(function), told_});
        const auto done = detail::called(
            [&](raftz_error **failure) { return call(made.get(), failure); });
        if (done) {
            static_cast<void>(made.release());
        }
        note(done);
        return *this;
    }

    std::shared_ptr<detail::reports> told_;
    std::optional<error> why_;
};

/** \brief A network within this process, for tests. Nodes in it keep what they need of it. */
class network : public handle<raftz_network, raftz_network_free> {
  public:
    using handle::handle;

    /** \brief Makes a network. */
    static result<network> make() { return detail::made<network>(raftz_network_new); }
};

/** \brief How a node is started. */
struct start_options {
    /** \brief Which machine it keeps, if it is none of the program's own: RAFTZ_BUILTIN_… */
    std::uint32_t builtin = RAFTZ_BUILTIN_KV;
    /** \brief A listening socket that is taken over, whether the start succeeds or fails; 0: none. */
    std::int32_t listen_fd = 0;
    /** \brief A network within this process, instead of TCP. */
    const raftz::network *network = nullptr;
};

/** \brief How a command is to be treated. */
struct propose_options {
    /** \brief Time after which the command is answered; 0: `propose_timeout_ms` of the configuration. */
    milliseconds timeout = milliseconds::zero();
    /** \brief RAFTZ_FORWARD_… */
    std::uint32_t forward = RAFTZ_FORWARD_DEFAULT;
    /** \brief The term in which this node must lead when it takes the command; 0: any. */
    std::uint64_t expected_term = 0;

    /** \brief As C has it. */
    raftz_propose_opts native() const noexcept {
        raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
        opts.timeout_ms = detail::option_ms(timeout);
        opts.forward = forward;
        opts.expected_term = expected_term;
        return opts;
    }
};

/** \brief What a read may see, and how long it may take: `read_options::stale()`. */
struct read_options {
    /** \brief RAFTZ_READ_… */
    std::uint32_t level = RAFTZ_READ_LINEARIZABLE;
    /** \brief Time after which the read is answered; 0: `read_timeout_ms` of the configuration. */
    milliseconds timeout = milliseconds::zero();
    /** \brief For RAFTZ_READ_AT_LEAST. */
    std::uint64_t index = 0;
    /** \brief For RAFTZ_READ_BOUNDED. */
    milliseconds max_age = milliseconds::zero();

    /** \brief All that was acknowledged anywhere before the read began. */
    static read_options linearizable() noexcept { return {}; }
    /** \brief The same, by the clock of a leader that has a lease. */
    static read_options lease() noexcept { return of(RAFTZ_READ_LEASE); }
    /** \brief At least what the entry at `index` had changed. */
    static read_options at_least(std::uint64_t index) noexcept {
        read_options options = of(RAFTZ_READ_AT_LEAST);
        options.index = index;
        return options;
    }
    /** \brief All that was acknowledged so long before the read began, or earlier. */
    static read_options bounded(milliseconds max_age) noexcept {
        read_options options = of(RAFTZ_READ_BOUNDED);
        options.max_age = max_age;
        return options;
    }
    /** \brief Whatever this node has applied. */
    static read_options stale() noexcept { return of(RAFTZ_READ_STALE); }
    /** \brief The same with a timeout. */
    read_options within(milliseconds time) const noexcept {
        read_options options = *this;
        options.timeout = time;
        return options;
    }

    /** \brief As C has it. */
    raftz_read_opts native() const noexcept {
        raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
        opts.level = level;
        opts.timeout_ms = detail::option_ms(timeout);
        opts.index = index;
        opts.max_age_ms = max_age.count() < 0 ? 0 : static_cast<std::uint64_t>(max_age.count());
        return opts;
    }

  private:
    static read_options of(std::uint32_t level) noexcept {
        read_options options;
        options.level = level;
        return options;
    }
};

/** \brief How a node was when it was asked. */
class state : public handle<raftz_state, raftz_state_free> {
  public:
    using handle::handle;

    /** \brief What it says; its words live as long as this. All zero if this was moved from. */
    raftz_state_info info() const noexcept {
        raftz_state_info info = RAFTZ_STATE_INFO_INIT;
        static_cast<void>(raftz_state_get(native(), &info, nullptr));
        return info;
    }
    /** \brief Why the node stopped, if it did because of a fault; else empty. */
    std::string_view fault() const noexcept { return slice(info().fault).text(); }
    /** \brief Why there may be no leader: who cannot be reached and why, in one line. */
    std::string_view obstacles() const noexcept { return slice(info().obstacles).text(); }
    /** \brief The other members; their words live as long as this. */
    std::vector<raftz_peer_info> peers() const {
        std::vector<raftz_peer_info> peers(info().peer_count, RAFTZ_PEER_INFO_INIT);
        for (std::size_t at = 0; at < peers.size(); at++) {
            static_cast<void>(raftz_state_peer(native(), at, &peers[at], nullptr));
        }
        return peers;
    }
};

/** \brief A running node: one member of one cluster. It stops when this ends, within two seconds; see stop(). */
class node : public handle<raftz_node, raftz_node_free> {
  public:
    /** \brief Takes over a node that was started in C; what its callbacks throw is told on standard error. */
    explicit node(raftz_node *started = nullptr)
        : handle(started), told_(std::make_shared<detail::reports>()) {}

    /** \brief Whether the configured directory holds a node's data. */
    static result<bool> is_formatted(const config &configured) {
        if (configured.why_.has_value()) {
            return *configured.why_;
        }
        return detail::given(false, [&](bool *answer, raftz_error **failure) {
            return raftz_node_is_formatted(configured.native(), answer, failure);
        });
    }

    /** \brief Founds a cluster on this node: once in its life, on every founder. */
    static result<void> bootstrap(const config &configured) {
        if (configured.why_.has_value()) {
            return *configured.why_;
        }
        return detail::called([&](raftz_error **failure) {
            return raftz_node_bootstrap(configured.native(), failure);
        });
    }

    /** \brief Starts a node with a machine that comes with the library, by default the key-value store. */
    static result<node> start(const config &configured,
                              const start_options &options = start_options()) {
        return started(configured, nullptr, options);
    }

    /**
     * \brief Starts a node with a machine of the program's own. The machine is destroyed once: after the node's
     * last call of it, or before this returns if the node does not start.
     */
    static result<node> start(const config &configured, std::unique_ptr<machine> own,
                              const start_options &options = start_options()) {
        if (own == nullptr) {
            return refused(options, detail::null("the machine"));
        }
        const auto index = detail::guarded(
            [&] { return own->applied_index(); },
            [](const char *what) -> result<std::optional<std::uint64_t>> { return error(what); });
        if (!index) {
            return refused(options, error(RAFTZ_MACHINE, "applied_index: " + index.error().message()));
        }
        std::unique_ptr<detail::machine_box> box(new detail::machine_box{
            nullptr, own->snapshots(), index->value_or(0)});
        box->owned = std::move(own);
        raftz_machine table = box->table();
        if (index->has_value()) {
            table.applied_index = detail::machine_box::applied_index;
        }
        table.user_data = &box;
        return started(configured, &table, options);
    }

    /** \brief Stops the node and waits until all of it has ended; afterwards none of its callbacks runs. */
    result<void> stop(milliseconds timeout = std::chrono::seconds(10)) {
        return detail::called([&](raftz_error **failure) {
            return raftz_node_stop(native(), detail::wait_ms(timeout), failure);
        });
    }

    /** \brief The node's id; 0 if this was moved from. */
    std::uint64_t id() const noexcept { return raftz_node_id(native()); }
    /** \brief Where it listens: `host:port`; empty if it does not. */
    result<std::string> listen_address() const {
        return text([&](raftz_bytes **out, raftz_error **failure) {
            return raftz_node_listen_address(native(), out, failure);
        });
    }
    /** \brief Waits until it knows a leader, and gives its id. */
    result<std::uint64_t> wait_for_leader(milliseconds timeout) const {
        return detail::given(std::uint64_t{0}, [&](std::uint64_t *id, raftz_error **failure) {
            return raftz_node_wait_for_leader(native(), detail::wait_ms(timeout), id, failure);
        });
    }
    /** \brief Waits until its machine has applied everything up to an index. */
    result<void> wait_for_applied(std::uint64_t index, milliseconds timeout) const {
        return detail::called([&](raftz_error **failure) {
            return raftz_node_wait_for_applied(native(), index, detail::wait_ms(timeout), failure);
        });
    }
    /** \brief Takes a snapshot, waits until it is on disk, and gives the last index that it covers. */
    result<std::uint64_t> snapshot(milliseconds timeout) const {
        return detail::given(std::uint64_t{0}, [&](std::uint64_t *index, raftz_error **failure) {
            return raftz_node_snapshot(native(), detail::wait_ms(timeout), index, failure);
        });
    }
    /** \brief Makes it stand for election now. */
    result<void> campaign() {
        return detail::called(
            [&](raftz_error **failure) { return raftz_node_campaign(native(), failure); });
    }

    /**
     * \brief Proposes a command; returns at once. `done` is called with how it ended, `(const outcome &)`, exactly
     * once if this succeeds and never if it fails, and is destroyed in either case.
     */
    template <class F>
    result<void> propose(payload command, F &&done,
                         const propose_options &options = propose_options()) {
        if (command.why_.has_value()) {
            return *command.why_;
        }
        const raftz_propose_opts opts = options.native();
        return detail::completed(
            std::forward<F>(done), told_, [&](auto *made, raftz_error **failure) {
                const auto one = std::remove_pointer_t<decltype(made)>::one;
                return command.owned_ ? raftz_propose_bytes(native(), command.owned_.release(),
                                                            &opts, one, made, failure)
                                      : raftz_propose(native(), command.view_.native(), &opts, one,
                                                      made, failure);
            });
    }
    /** \brief Proposes a command and waits until it is committed and applied. */
    result<reply> propose_wait(const payload &command,
                               const propose_options &options = propose_options()) {
        if (command.why_.has_value()) {
            return *command.why_;
        }
        const raftz_propose_opts opts = options.native();
        return replied([&](raftz_reply *raw, raftz_error **failure) {
            return raftz_propose_wait(native(), command.view_.native(), &opts, raw, failure);
        });
    }
    /** \brief Proposes a command. Do not wait for the future inside a callback: the node would wait for itself. */
    std::future<result<reply>> propose_future(payload command,
                                              const propose_options &options = propose_options()) {
        return promised<reply>(kept, [&](auto &&done) {
            return propose(std::move(command), std::forward<decltype(done)>(done), options);
        });
    }
    /** \brief Proposes commands that reach the log in this order. `done` is told all: `(const outcomes &)`. */
    template <class F>
    result<void> propose_batch(const std::vector<slice> &batch, F &&done,
                               const propose_options &options = propose_options()) {
        const raftz_propose_opts opts = options.native();
        const std::vector<raftz_slice> raw = natives(batch);
        return detail::completed(
            std::forward<F>(done), told_, [&](auto *made, raftz_error **failure) {
                return raftz_propose_batch(native(), raw.data(), raw.size(), &opts,
                                           std::remove_pointer_t<decltype(made)>::all, made,
                                           failure);
            });
    }
    /** \brief Proposes commands that reach the log in this order. As for waiting, see propose_future(). */
    std::future<result<std::vector<result<reply>>>>
    propose_batch_future(const std::vector<slice> &batch,
                         const propose_options &options = propose_options()) {
        const auto keep = [](const raftz::outcomes &ended) {
            std::vector<result<reply>> all;
            for (const outcome one : ended) {
                all.push_back(one.to_result());
            }
            return all;
        };
        return promised<std::vector<result<reply>>>(keep, [&](auto &&done) {
            return propose_batch(batch, std::forward<decltype(done)>(done), options);
        });
    }
    /** \brief Proposes commands, and has their end put into a queue, with the user data. */
    result<void> propose_queued(const std::vector<slice> &batch, queue &to, void *user_data,
                                const propose_options &options = propose_options()) {
        const raftz_propose_opts opts = options.native();
        const std::vector<raftz_slice> raw = natives(batch);
        return detail::called([&](raftz_error **failure) {
            return raftz_propose_queued(native(), raw.data(), raw.size(), &opts, to.native(),
                                        user_data, failure);
        });
    }

    /** \brief Asks the state machine; returns at once. `done` as of propose(). */
    template <class F>
    result<void> read(const payload &request, F &&done,
                      const read_options &options = read_options()) const {
        if (request.why_.has_value()) {
            return *request.why_;
        }
        const raftz_read_opts opts = options.native();
        return detail::completed(
            std::forward<F>(done), told_, [&](auto *made, raftz_error **failure) {
                return raftz_read(native(), request.view_.native(), &opts,
                                  std::remove_pointer_t<decltype(made)>::one, made, failure);
            });
    }
    /** \brief Asks the state machine and waits for the answer. */
    result<reply> read_wait(const payload &request,
                            const read_options &options = read_options()) const {
        if (request.why_.has_value()) {
            return *request.why_;
        }
        const raftz_read_opts opts = options.native();
        return replied([&](raftz_reply *raw, raftz_error **failure) {
            return raftz_read_wait(native(), request.view_.native(), &opts, raw, failure);
        });
    }
    /** \brief Asks the state machine. As for waiting, see propose_future(). */
    std::future<result<reply>> read_future(const payload &request,
                                           const read_options &options = read_options()) const {
        return promised<reply>(kept, [&](auto &&done) {
            return read(request, std::forward<decltype(done)>(done), options);
        });
    }
    /** \brief Asks the state machine, and has the answer put into a queue, with the user data. */
    result<void> read_queued(const payload &request, queue &to, void *user_data,
                             const read_options &options = read_options()) const {
        if (request.why_.has_value()) {
            return *request.why_;
        }
        const raftz_read_opts opts = options.native();
        return detail::called([&](raftz_error **failure) {
            return raftz_read_queued(native(), request.view_.native(), &opts, to.native(),
                                     user_data, failure);
        });
    }

    /** \brief Has another node lead, 0: whoever suits best; returns at once. `done` as of propose(). */
    template <class F>
    result<void> transfer_leadership(std::uint64_t target_id, milliseconds timeout, F &&done) {
        return detail::completed(
            std::forward<F>(done), told_, [&](auto *made, raftz_error **failure) {
                return raftz_transfer_leadership(native(), target_id, detail::wait_ms(timeout),
                                                 std::remove_pointer_t<decltype(made)>::one, made,
                                                 failure);
            });
    }
    /** \brief Has another node lead, waits until it does, and gives its id. */
    result<std::uint64_t> transfer_leadership_wait(std::uint64_t target_id, milliseconds timeout) {
        return detail::given(std::uint64_t{0}, [&](std::uint64_t *id, raftz_error **failure) {
            return raftz_transfer_leadership_wait(native(), target_id, detail::wait_ms(timeout),
                                                  id, failure);
        });
    }
    /** \brief Has another node lead; the future gives its id. As for waiting, see propose_future(). */
    std::future<result<std::uint64_t>> transfer_leadership_future(std::uint64_t target_id,
                                                                  milliseconds timeout) {
        return promised<std::uint64_t>(leads, [&](auto &&done) {
            return transfer_leadership(target_id, timeout, std::forward<decltype(done)>(done));
        });
    }
    /** \brief Has another node lead, and the end put into a queue, with the user data. */
    result<void> transfer_leadership_queued(std::uint64_t target_id, milliseconds timeout,
                                            queue &to, void *user_data) {
        return detail::called([&](raftz_error **failure) {
            return raftz_transfer_leadership_queued(native(), target_id, detail::wait_ms(timeout),
                                                    to.native(), user_data, failure);
        });
    }
    /** \brief Has the best of the others lead, and leaves elections to them for a while. `done` as of propose(). */
    template <class F> result<void> step_down(milliseconds timeout, F &&done) {
        return detail::completed(
            std::forward<F>(done), told_, [&](auto *made, raftz_error **failure) {
                return raftz_step_down(native(), detail::wait_ms(timeout),
                                       std::remove_pointer_t<decltype(made)>::one, made, failure);
            });
    }
    /** \brief As step_down(), waits until another leads, and gives its id. */
    result<std::uint64_t> step_down_wait(milliseconds timeout) {
        return detail::given(std::uint64_t{0}, [&](std::uint64_t *id, raftz_error **failure) {
            return raftz_step_down_wait(native(), detail::wait_ms(timeout), id, failure);
        });
    }
    /** \brief As step_down(); the future gives who leads. As for waiting, see propose_future(). */
    std::future<result<std::uint64_t>> step_down_future(milliseconds timeout) {
        return promised<std::uint64_t>(leads, [&](auto &&done) {
            return step_down(timeout, std::forward<decltype(done)>(done));
        });
    }
    /** \brief As step_down(), and has the end put into a queue, with the user data. */
    result<void> step_down_queued(milliseconds timeout, queue &to, void *user_data) {
        return detail::called([&](raftz_error **failure) {
            return raftz_step_down_queued(native(), detail::wait_ms(timeout), to.native(),
                                          user_data, failure);
        });
    }

    /** \brief How it is. */
    result<raftz::state> state() const {
        return detail::made<raftz::state>([&](raftz_state **out, raftz_error **failure) {
            return raftz_node_state(native(), out, failure);
        });
    }
    /** \brief What it has counted and measured, in numbers. */
    result<raftz_metrics_info> metrics() const {
        return detail::given(raftz_metrics_info RAFTZ_METRICS_INFO_INIT,
                             [&](raftz_metrics_info *info, raftz_error **failure) {
                                 return raftz_metrics(native(), info, failure);
                             });
    }
    /** \brief What it has measured of another member. */
    result<raftz_peer_metrics_info> metrics_peer(std::uint64_t peer_id) const {
        return detail::given(raftz_peer_metrics_info RAFTZ_PEER_METRICS_INFO_INIT,
                             [&](raftz_peer_metrics_info *info, raftz_error **failure) {
                                 return raftz_metrics_peer(native(), peer_id, info, failure);
                             });
    }
    /** \brief What it has counted and measured, as Prometheus reads it. */
    result<std::string> metrics_text() const {
        return text([&](raftz_bytes **out, raftz_error **failure) {
            return raftz_metrics_text(native(), out, failure);
        });
    }
    /** \brief Waits until it stands in another way than at that version, 0: none; RAFTZ_EMPTY if it does not. */
    result<raftz_standing_info> watch_wait(std::uint64_t after_version, milliseconds timeout) const {
        return detail::given(raftz_standing_info RAFTZ_STANDING_INFO_INIT,
                             [&](raftz_standing_info *info, raftz_error **failure) {
                                 return raftz_watch_wait(native(), after_version,
                                                         detail::wait_ms(timeout), info, failure);
                             });
    }

  private:
    node(raftz_node *started, std::shared_ptr<const detail::reports> told) noexcept
        : handle(started), told_(std::move(told)) {}

    /* A socket that was handed over is taken, also where C is not even asked. */
    static result<node> refused(const start_options &options, error why) {
        if (options.listen_fd > 0) {
            static_cast<void>(::close(options.listen_fd));
        }
        return why;
    }

    static result<node> started(const config &configured, const raftz_machine *table,
                                const start_options &options) {
        if (configured.why_.has_value()) {
            return refused(options, *configured.why_);
        }
        if (options.network != nullptr && !*options.network) {
            return refused(options, detail::null("a network that was moved from"));
        }
        raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
        opts.builtin = options.builtin;
        opts.listen_fd = options.listen_fd;
        opts.network = options.network == nullptr ? nullptr : options.network->native();
        raftz_node *made = nullptr;
        const auto done = detail::called([&](raftz_error **failure) {
            return raftz_node_start(configured.native(), table, &opts, &made, failure);
        });
        if (!done) {
            return done.error();
        }
        return node(made, configured.told_);
    }

    template <class Call> static result<reply> replied(Call &&call) {
        raftz_reply raw = RAFTZ_REPLY_INIT;
        const auto done =
            detail::called([&](raftz_error **failure) { return call(&raw, failure); });
        if (!done) {
            return done.error();
        }
        return reply(bytes(raw.bytes), raw.index, raw.term, raw.flags);
    }

    template <class Call> static result<std::string> text(Call &&call) {
        const auto made = detail::made<bytes>(std::forward<Call>(call));
        if (!made) {
            return made.error();
        }
        return made->view().str();
    }

    static std::vector<raftz_slice> natives(const std::vector<slice> &batch) {
        std::vector<raftz_slice> raw;
        raw.reserve(batch.size());
        for (const slice &one : batch) {
            raw.push_back(one.native());
        }
        return raw;
    }

    static result<reply> kept(const outcome &ended) { return ended.to_result(); }
    static result<std::uint64_t> leads(const outcome &ended) {
        if (!ended) {
            return error(ended.native());
        }
        return ended.leader_id();
    }

    /* A future of what `keep` makes of the outcome; one that is there already, if the call is not accepted. */
    template <class T, class Keep, class Call>
    static std::future<result<T>> promised(Keep keep, Call &&call) {
        std::promise<result<T>> promise;
        auto future = promise.get_future();
        auto accepted = call([promise = std::move(promise), keep](const auto &ended) mutable {
            promise.set_value(keep(ended));
        });
        if (!accepted) {
            std::promise<result<T>> ready;
            ready.set_value(accepted.error());
            return ready.get_future();
        }
        return future;
    }

    std::shared_ptr<const detail::reports> told_;
};

/** \brief How a node stands, seen change by change; what came in between is skipped. */
class watch {
  public:
    /** \brief Waits until the node stands in another way than this has seen, the first time not at all. */
    result<raftz_standing_info> next(const node &watched, milliseconds timeout) {
        auto info = watched.watch_wait(seen_, timeout);
        if (info) {
            seen_ = info->version;
        }
        return info;
    }

  private:
    std::uint64_t seen_ = 0;
};

/** \brief Commands and questions for the key-value store, and its answers. */
namespace kv {

namespace detail {
inline const raftz_slice *optional(const std::optional<slice> &from, raftz_slice &room) noexcept {
    if (!from.has_value()) {
        return nullptr;
    }
    room = from->native();
    return &room;
}
} // namespace detail

/** \brief A command: gives a key a value. */
inline result<bytes> set(slice key, slice value) {
    return raftz::detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
        return raftz_kv_set(key.native(), value.native(), out, failure);
    });
}
/** \brief A command: takes a key out. */
inline result<bytes> delete_key(slice key) {
    return raftz::detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
        return raftz_kv_delete(key.native(), out, failure);
    });
}
/** \brief A command: writes a value if the present one is the expected one. std::nullopt is no value, each. */
inline result<bytes> compare_and_set(slice key, std::optional<slice> expected,
                                     std::optional<slice> value) {
    return raftz::detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
        raftz_slice rooms[2];
        return raftz_kv_compare_and_set(key.native(), detail::optional(expected, rooms[0]),
                                        detail::optional(value, rooms[1]), out, failure);
    });
}
/** \brief A command: adds to the decimal number under a key. */
inline result<bytes> increment(slice key, std::int64_t by = 1) {
    return raftz::detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
        return raftz_kv_increment(key.native(), by, out, failure);
    });
}
/** \brief A question: the value under a key. */
inline result<bytes> get(slice key) {
    return raftz::detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
        return raftz_kv_get(key.native(), out, failure);
    });
}
/** \brief A question: keys that begin with a prefix, beyond `after`, at most so many, and their values. */
inline result<bytes> scan(slice prefix, std::uint32_t limit,
                          std::optional<slice> after = std::nullopt) {
    return raftz::detail::made<bytes>([&](raftz_bytes **out, raftz_error **failure) {
        raftz_slice room;
        return raftz_kv_scan(prefix.native(), detail::optional(after, room), limit, out, failure);
    });
}
/** \brief A question: how many keys there are, and a digest of all of them and their values. */
inline result<bytes> digest() { return raftz::detail::made<bytes>(raftz_kv_digest); }

/** \brief An answer of the key-value store; its bytes live as long as this. */
class answer : public handle<raftz_kv_reply, raftz_kv_reply_free> {
  public:
    using handle::handle;

    /** \brief Reads what a command or question was answered with, and the flags that came with it. */
    static result<answer> of(slice data, std::uint32_t flags) {
        return raftz::detail::made<answer>([&](raftz_kv_reply **out, raftz_error **failure) {
            return raftz_kv_reply_read(data.native(), flags, out, failure);
        });
    }
    /** \brief Reads a reply. */
    static result<answer> of(const reply &given) { return of(given.view(), given.flags()); }
    /** \brief Reads a reply, or gives its error: `kv::answer::of(node.read_wait(kv::get("city")))`. */
    static result<answer> of(const result<reply> &given) {
        return given ? of(*given) : result<answer>(given.error());
    }
    /** \brief Reads how a call ended, inside a completion. */
    static result<answer> of(const outcome &ended) {
        return ended ? of(ended.reply(), ended.native().flags)
                     : result<answer>(error(ended.native()));
    }

    /** \brief What it says. All zero if this was moved from. */
    raftz_kv_reply_info info() const noexcept {
        raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
        static_cast<void>(raftz_kv_reply_get(native(), &info, nullptr));
        return info;
    }
    /** \brief RAFTZ_KV_… */
    std::uint32_t kind() const noexcept { return info().kind; }
    /** \brief See the kind: whether the key has a value, had one, or further keys match. */
    bool is_on() const noexcept { return info().is_on != 0; }
    /** \brief See the kind. */
    std::int64_t number() const noexcept { return info().number; }
    /** \brief See the kind. */
    std::uint64_t count() const noexcept { return info().count; }
    /** \brief See the kind. */
    slice value() const noexcept { return info().value; }
    /** \brief A key and its value, of an answer to scan(). */
    result<std::pair<slice, slice>> entry(std::size_t at) const {
        raftz_slice key = {nullptr, 0};
        raftz_slice value = {nullptr, 0};
        const auto done = raftz::detail::called([&](raftz_error **failure) {
            return raftz_kv_reply_entry(native(), at, &key, &value, failure);
        });
        if (!done) {
            return done.error();
        }
        return std::pair<slice, slice>(key, value);
    }
};

} // namespace kv

#if !defined(__cpp_exceptions)
} // namespace without_exceptions
#endif
} // namespace raftz

#endif
