-- needs: base, recounting, batch, slots, uniques, terms, records
-- Stores new jobs of any kind, one after the other.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { job, ... }, each as the argument of enqueue() in records
-- Answers { id of the queued job, 1 if it is new, ... }.

local answers = {}
for _, job in ipairs(given) do
  local id, created = enqueue(job)
  answers[#answers + 1] = id
  answers[#answers + 1] = created and 1 or 0
end
flush()
return answers
