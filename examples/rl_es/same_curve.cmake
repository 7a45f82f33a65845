# Checks that the learning curve and the policy are the same bytes for any number of workers,
# and others for another seed.
#   cmake -D PROGRAM=rl_es -D FOLDER=scratch -P same_curve.cmake

function(train name)
  execute_process(COMMAND ${PROGRAM} --iterations 4 --output ${FOLDER}/${name} ${ARGN} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "rl_es ${ARGN} ended with ${failed}")
  endif()
endfunction()

function(same out a b file)
  execute_process(COMMAND ${CMAKE_COMMAND} -E compare_files ${FOLDER}/${a}/${file} ${FOLDER}/${b}/${file}
                  RESULT_VARIABLE differs OUTPUT_QUIET ERROR_QUIET)
  if(differs)
    set(${out} FALSE PARENT_SCOPE)
  else()
    set(${out} TRUE PARENT_SCOPE)
  endif()
endfunction()

file(REMOVE_RECURSE ${FOLDER})
train(one --seed 5 --workers 1)
train(three --seed 5 --workers 3)
train(other --seed 6 --workers 3)
foreach(file learning_curve.csv policy.txt)
  same(equal one three ${file})
  if(NOT equal)
    message(FATAL_ERROR "${file} depends on the number of workers: compare ${FOLDER}/one and ${FOLDER}/three")
  endif()
endforeach()
same(equal three other learning_curve.csv)
if(equal)
  message(FATAL_ERROR "the learning curve does not depend on the seed: see ${FOLDER}")
endif()
