#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "convert/tensor_plan.h"
#include "tensor/element_type.h"

namespace ds4::convert {

// Which element type each tensor of a file gets: a default by class, then the user's choices in
// order, later ones winning.  Immutable after set-up.
class Recipe {
 public:
  // The published files: "q2" (experts IQ2_XXS and Q2_K, attention, shared expert and output Q8_0,
  // the rest F16), "q4" and "mxfp4" (the same with all experts Q4_K or MXFP4), "q8" (experts Q8_0),
  // "f16", "bf16" and "f32" (everything).  Throws Error(kInvalidArgument) for another name.
  explicit Recipe(std::string_view name = "q2");
  static std::string_view names() { return "q2, q4, mxfp4, q8, f16, bf16, f32"; }

  // Adds a choice "CLASS=TYPE": CLASS is one of class_names(), or the beginning of tensor names.
  // Throws Error(kInvalidArgument) when it can't be read.
  void add_choice(std::string_view choice);
  static std::string_view class_names() {
    return "all, experts, routed_w1, routed_w2, routed_w3, embedding, output, shared, attention, "
           "attention_other, dense, mtp";
  }

  // The type of `tensor`.  Vectors are F32 and hash tables I32 whatever was chosen.  A default
  // whose block does not divide the rows gives way to Q8_0 or F16, said to `log`; a choice of the
  // user that does not fit throws Error(kInvalidArgument).
  ElementType type_of(const PlannedTensor& tensor, const LogSink& log) const;

  // Throws Error(kInvalidArgument) for a choice by name that fits none of `tensors`.
  void check_choices(std::span<const PlannedTensor> tensors) const;

 private:
  struct Choice {
    std::string target;  // a class name or the beginning of a tensor name
    bool is_class;
    ElementType type;
  };
  ElementType default_type(const PlannedTensor& tensor) const;

  std::string name_;
  ElementType gate_up_;
  ElementType down_;
  ElementType mtp_experts_;
  ElementType projection_;  // attention, shared expert, output
  ElementType rest_;
  std::vector<Choice> choices_;
};

}  // namespace ds4::convert
