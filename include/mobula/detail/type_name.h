// Spells types and functions at compile time, as the compiler spells them.
//
// The names are for people (errors, lists, the dashboard) and for telling the standard
// library's templates from look-alikes. Compilers disagree on spelling
// (`std::__cxx11::basic_string<char>` or `std::basic_string<char>`), so a name is equal
// to another only within programs of one compiler.
#pragma once

#include <cstddef>
#include <string_view>

namespace mobula {
namespace detail {

template <class T>
constexpr auto pretty_type() {
  return std::string_view(__PRETTY_FUNCTION__);
}

template <auto F>
constexpr auto pretty_function() {
  return std::string_view(__PRETTY_FUNCTION__);
}

// What surrounds the name is the same for all T, so one known type measures it.
inline constexpr std::size_t kTypePrefix = pretty_type<double>().find("double");
inline constexpr std::size_t kTypeSuffix =
    pretty_type<double>().size() - kTypePrefix - std::string_view("double").size();

// `lambda at dir/file.cc:3:5` (clang) or `f()::<lambda(int)>` (gcc), without the wrapping
// that says "a closure object of this type".
constexpr std::string_view strip_closure(std::string_view name) {
  constexpr std::string_view kGcc = "<lambda closure object>";
  constexpr std::string_view kClang = "(lambda at ";
  if (name.starts_with(kGcc)) {
    name.remove_prefix(kGcc.size());
    if (name.ends_with("()") || name.ends_with("{}")) name.remove_suffix(2);
  } else if (const std::size_t at = name.find(kClang); at != std::string_view::npos) {
    if (name.ends_with("{}")) name.remove_suffix(2);
    if (name.ends_with(")")) name.remove_suffix(1);
    const std::size_t slash = name.rfind('/');
    // the folder belongs to the machine that compiled it
    name.remove_prefix(slash != std::string_view::npos ? slash + 1 : at + 1);
  }
  return name;
}

}  // namespace detail

// The name of T with its namespaces: "int", "robot::Arm", "std::vector<int>".
template <class T>
constexpr std::string_view type_name() {
  std::string_view name = detail::pretty_type<T>();
  name.remove_prefix(detail::kTypePrefix);
  name.remove_suffix(detail::kTypeSuffix);
  return name;
}

// The name of a function or method given as a template argument: "square",
// "Counter::add". A lambda gives its enclosing function (gcc) or its file, line and
// column (clang), so lambdas stay apart for a reader.
template <auto F>
constexpr std::string_view function_name() {
  std::string_view name = detail::pretty_function<F>();
  name.remove_prefix(name.find("F = ") + 4);
  name.remove_suffix(1);
  if (name.starts_with('&')) name.remove_prefix(1);
  return detail::strip_closure(name);
}

}  // namespace mobula
