-- needs: base, batch, slots, uniques, records
-- Stores new jobs of any kind, one after the other. Arguments: { job, ... }, each as enqueue() in jobs has it.
-- Answers { id now queued, 1 if new, ... }.

local answers = {}
for _, job in ipairs(given) do
  local id, created = enqueue(job)
  answers[#answers + 1] = id
  answers[#answers + 1] = created and 1 or 0
end
flush()
return answers
